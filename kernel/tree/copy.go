package tree

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Copy makes the directory from again below to, which exists and holds nothing
// of the same names: files, directories, links, hard links, devices (so
// whiteouts too), named pipes, with owners, modes, times and attributes. Skip
// are names in from that are left out; sockets are too. Holes stay holes.
// Nobody may change from meanwhile. It returns the bytes of content; with more
// than mostBytes it is unix.EFBIG.
func Copy(from, to string, skip []string, mostBytes int64) (int64, error) {
	t, err := Open(to)
	if err != nil {
		return 0, err
	}
	defer t.Close()
	c := &copier{from: from, to: t, skip: skip, left: mostBytes, linked: map[[2]uint64]string{}}
	err = c.directory(".")
	return mostBytes - c.left, err
}

// copier is one Copy under way.
type copier struct {
	from   string
	to     *Tree
	skip   []string
	left   int64                // bytes that may still be copied
	linked map[[2]uint64]string // device and inode -> first name, of files with several names
}

// directory copies what is in a directory, then gives it its metadata, which
// making entries would change.
func (c *copier) directory(name string) error {
	entries, err := os.ReadDir(filepath.Join(c.from, name))
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	for _, e := range entries {
		entry := path.Join(name, e.Name())
		if slices.Contains(c.skip, entry) {
			continue
		}
		if err := c.entry(entry); err != nil {
			return err
		}
	}
	meta, err := c.meta(name)
	if err != nil {
		return err
	}
	return c.to.Set(name, meta)
}

func (c *copier) entry(name string) error {
	info, err := os.Lstat(filepath.Join(c.from, name))
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	st := info.Sys().(*syscall.Stat_t)
	if st.Nlink > 1 && !info.IsDir() {
		key := [2]uint64{st.Dev, st.Ino}
		if first, ok := c.linked[key]; ok {
			return c.to.Link(first, name)
		}
		c.linked[key] = name
	}
	switch mode := info.Mode(); {
	case mode.IsDir():
		if err := c.to.Mkdir(name); err != nil {
			return err
		}
		return c.directory(name)
	case mode.IsRegular():
		return c.file(name)
	case mode&fs.ModeSocket != 0:
		return nil
	case mode&fs.ModeSymlink != 0:
		err = c.link(name)
	default:
		err = c.to.mknod(name, st.Mode&unix.S_IFMT, int(st.Rdev))
	}
	if err != nil {
		return err
	}
	meta, err := c.meta(name)
	if err != nil {
		return err
	}
	return c.to.Set(name, meta)
}

func (c *copier) link(name string) error {
	target, err := os.Readlink(filepath.Join(c.from, name))
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	return c.to.Symlink(target, name)
}

func (c *copier) file(name string) error {
	in, err := os.OpenFile(filepath.Join(c.from, name), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	defer in.Close()
	out, err := c.to.Create(name)
	if err != nil {
		return err
	}
	err = c.content(in, out)
	if err == nil {
		var meta Meta
		if meta, err = c.meta(name); err == nil {
			err = SetFile(out, meta)
		}
	}
	return errors.Join(err, out.Close())
}

// content copies the runs of data of a file and gives it its length.
func (c *copier) content(in, out *os.File) error {
	info, err := in.Stat()
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	for at := int64(0); at < info.Size(); {
		data, err := in.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return fmt.Errorf("copy: %w", err)
		}
		hole, err := in.Seek(data, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("copy: %w", err)
		}
		if c.left -= hole - data; c.left < 0 {
			return wrap("copy", in.Name(), unix.EFBIG)
		}
		if _, err := io.Copy(io.NewOffsetWriter(out, data), io.NewSectionReader(in, data, hole-data)); err != nil {
			return fmt.Errorf("copy: %w", err)
		}
		at = hole
	}
	return wrapNil("copy", in.Name(), out.Truncate(info.Size()))
}

// meta reads an entry's metadata.
func (c *copier) meta(name string) (Meta, error) {
	from := filepath.Join(c.from, name)
	stat := unix.Lstat
	if name == "." { // it may be a link in /proc/self/fd
		stat = unix.Stat
	}
	var st unix.Stat_t
	if err := stat(from, &st); err != nil {
		return Meta{}, wrap("copy", name, err)
	}
	m := Meta{Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, ModTime: time.Unix(st.Mtim.Unix())}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return m, nil
	}
	var err error
	m.Xattrs, err = xattrs(from)
	return m, err
}

// xattrs reads an entry's attributes; a file system without any has none.
func xattrs(file string) (map[string]string, error) {
	n, err := unix.Llistxattr(file, nil)
	if err == unix.ENOTSUP || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, wrap("list attributes of", file, err)
	}
	names := make([]byte, n)
	if n, err = unix.Llistxattr(file, names); err != nil {
		return nil, wrap("list attributes of", file, err)
	}
	all := map[string]string{}
	for name := range bytes.SplitSeq(bytes.TrimSuffix(names[:n], []byte{0}), []byte{0}) {
		value := make([]byte, 64<<10) // the most there can be
		n, err := unix.Lgetxattr(file, string(name), value)
		if err != nil {
			return nil, wrap("read attribute of", file, err)
		}
		all[string(name)] = string(value[:n])
	}
	return all, nil
}
