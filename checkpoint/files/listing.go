package files

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/zeebo/xxh3"
)

// Listing is what a tree looked like: a digest of each directory's entries, by
// path, "." first. A tree that is one file has that one entry.
type Listing struct {
	Directories []Directory `json:"directories"`
	// Youngest is the latest time of change of any entry. A change within the
	// same tick of the file system's clock would not be seen.
	Youngest time.Time `json:"youngest"`
}

// Directory is the digest of the names in one directory and of what they are.
type Directory struct {
	Path   string `json:"path"`
	Digest uint64 `json:"digest"`
}

// Options say what a Listing covers.
type Options struct {
	// Skip are directories, relative to the tree, that are left out.
	Skip []string
	// Copied leaves out what differs between a tree and its copy: inode numbers
	// and times of change.
	Copied bool
}

// most bounds a tree: looking at more entries would take longer than many a
// cold start. 2 us an entry, so 0.2 s.
const most = 100_000

// ErrTooMany says that a tree has more files than are compared.
var ErrTooMany = fmt.Errorf("more than %d files", most)

// List looks at a tree. Errors: ErrTooMany; os.ErrNotExist for a tree that is
// not there.
func List(root string, o Options) (*Listing, error) {
	l := &lister{Options: o, root: root}
	info, err := os.Lstat(root)
	if err == nil && !info.IsDir() {
		err = l.file(info)
	} else if err == nil {
		err = l.directory(".", info)
	}
	if err != nil {
		return nil, fmt.Errorf("list files of %s: %w", root, err)
	}
	return &l.found, nil
}

// lister is one List under way.
type lister struct {
	Options
	root  string
	found Listing
	count int
}

func (l *lister) file(info fs.FileInfo) error {
	h := xxh3.New()
	err := l.add(h, ".", info)
	l.found.Directories = []Directory{{".", h.Sum64()}}
	return err
}

// directory adds a directory and those below it. Its own owner, mode and
// attributes are in its parent's digest; of the first one they are in its own.
func (l *lister) directory(path string, self fs.FileInfo) error {
	entries, err := os.ReadDir(filepath.Join(l.root, path)) // sorted
	if err != nil {
		return err
	}
	h := xxh3.New()
	if path == "." {
		err = l.add(h, ".", self)
	}
	at := len(l.found.Directories)
	l.found.Directories = append(l.found.Directories, Directory{Path: path})
	for _, e := range entries {
		name := filepath.Join(path, e.Name())
		info, infoErr := e.Info()
		if errors.Is(infoErr, fs.ErrNotExist) || slices.Contains(l.Skip, name) || info != nil && info.Mode()&fs.ModeSocket != 0 {
			continue // sockets are made again
		}
		if err = errors.Join(err, infoErr); err != nil {
			return err
		}
		if err = l.add(h, e.Name(), info); err != nil {
			return err
		}
		if info.IsDir() {
			if err = l.directory(name, info); err != nil {
				return err
			}
		}
	}
	l.found.Directories[at].Digest = h.Sum64()
	return err
}

// add digests one entry. The times of a directory change with its entries, of
// which it has a digest.
func (l *lister) add(h *xxh3.Hasher, name string, info fs.FileInfo) error {
	if l.count++; l.count > most {
		return ErrTooMany
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("look at %s: no details", info.Name())
	}
	changed := time.Unix(st.Ctim.Unix())
	if changed.After(l.found.Youngest) {
		l.found.Youngest = changed
	}
	_, _ = h.WriteString(name) // a hash takes everything
	values := []uint64{0, uint64(st.Mode), uint64(st.Uid)<<32 | uint64(st.Gid), st.Rdev}
	if !info.IsDir() {
		values = append(values, uint64(st.Size), uint64(st.Mtim.Nano()))
	}
	if !l.Copied {
		values = append(values, st.Ino)
	}
	if !l.Copied && !info.IsDir() {
		values = append(values, uint64(st.Ctim.Nano()))
	}
	for _, v := range values {
		_, _ = h.Write(binary.LittleEndian.AppendUint64(nil, v))
	}
	return nil
}

// Difference names a directory in which something is not as it was, or is
// empty.
func (l *Listing) Difference(now *Listing) string {
	is := map[string]uint64{}
	for _, d := range now.Directories {
		is[d.Path] = d.Digest
	}
	for _, d := range l.Directories {
		digest, there := is[d.Path]
		if !there {
			return d.Path + " (removed)"
		}
		if digest != d.Digest {
			return d.Path
		}
		delete(is, d.Path)
	}
	for _, d := range now.Directories {
		if _, fresh := is[d.Path]; fresh {
			return d.Path + " (new)"
		}
	}
	return ""
}
