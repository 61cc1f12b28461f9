package files

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"torpor/kernel/tree"
)

// Tree is a directory tree, or one file, that a container sees.
type Tree struct {
	Target string // where the container sees it
	Path   string // on this host
	// Layer says that the tree is the container's own: its writable layer or a
	// file system in memory. Its content is kept with the checkpoint and given
	// to every container that is restored from it.
	Layer bool
	// Disposable are directories of a layer, relative to it, whose content does
	// not matter to a program that starts: they are not compared.
	Disposable []string
	// Memory says that a layer is empty in every new container.
	Memory bool
}

// Record is what a checkpoint keeps of a Tree.
type Record struct {
	Target     string   `json:"target"`
	Layer      bool     `json:"layer,omitempty"`
	Disposable []string `json:"disposable,omitempty"`
	Memory     bool     `json:"memory,omitempty"`
	Listing    Listing  `json:"listing"`
	Copy       string   `json:"copy,omitempty"` // name of the layer's copy in the checkpoint's directory
}

// layerMost bounds the content of layers that is kept with a checkpoint.
const layerMost = 512 << 20

// settled is how old the last change of a tree has to be for another one to
// show in its times: more than a tick of any kernel's clock.
const settled = 20 * time.Millisecond

// Take records trees that nobody changes meanwhile; copies of layers go below
// dir. Errors: ErrTooMany, and syscall.EFBIG for layers of more than 512 MB.
func Take(trees []Tree, dir string) ([]Record, error) {
	var records []Record
	left := int64(layerMost)
	for i, t := range trees {
		r := Record{Target: t.Target, Layer: t.Layer, Disposable: t.Disposable, Memory: t.Memory}
		listing, err := settledListing(t)
		if err != nil {
			return nil, err
		}
		r.Listing = *listing
		if t.Layer {
			r.Copy = fmt.Sprintf("layer-%d", i)
			n, err := copyInto(t.Path, filepath.Join(dir, r.Copy), nil, left)
			if err != nil {
				return nil, err
			}
			left -= n
		}
		records = append(records, r)
	}
	return records, nil
}

func settledListing(t Tree) (*Listing, error) {
	for {
		l, err := List(t.Path, Options{Skip: t.Disposable, Copied: t.Layer})
		if err != nil {
			return nil, err
		}
		age := time.Since(l.Youngest)
		if age < 0 || age > settled {
			return l, nil
		}
		time.Sleep(settled - age)
	}
}

func copyInto(from, to string, skip []string, mostBytes int64) (int64, error) {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return 0, fmt.Errorf("copy layer: %w", err)
	}
	n, err := tree.Copy(from, to, skip, mostBytes)
	if err != nil {
		return n, fmt.Errorf("copy layer %s: %w", from, err)
	}
	return n, nil
}

// Compare says what is not as the records have it: the path of a directory as
// the container sees it, or "". A layer that is empty or not there yet is that
// of a new container, and right.
func Compare(records []Record, trees []Tree) (string, error) {
	if len(records) != len(trees) {
		return "the mounts", nil
	}
	for i, t := range trees {
		r := &records[i]
		if r.Target != t.Target || r.Layer != t.Layer || !slices.Equal(r.Disposable, t.Disposable) {
			return "the mount at " + t.Target, nil
		}
		if t.Memory || t.Layer && empty(t.Path) {
			continue
		}
		now, err := List(t.Path, Options{Skip: t.Disposable, Copied: t.Layer})
		if errors.Is(err, os.ErrNotExist) {
			return t.Target + " (removed)", nil
		}
		if err != nil {
			return "", err
		}
		if where := r.Listing.Difference(now); where != "" {
			return filepath.Join(t.Target, where), nil
		}
	}
	return "", nil
}

func empty(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err != nil && errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0
}

// Give makes a layer what it was: all of it in a new container, else its
// disposable directories, which are what alone may differ. dir is the
// checkpoint's directory.
func (r *Record) Give(dir, to string) error {
	from := filepath.Join(dir, r.Copy)
	if empty(to) || r.Memory {
		_, err := copyInto(from, to, nil, layerMost)
		return err
	}
	for _, name := range r.Disposable {
		if !plain(to, filepath.Dir(name)) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(to, name)); err != nil {
			return fmt.Errorf("give back layer: %w", err)
		}
		if !plain(from, name) {
			continue // it had none
		}
		if _, err := copyInto(filepath.Join(from, name), filepath.Join(to, name), nil, layerMost); err != nil {
			return err
		}
	}
	return nil
}

// plain reports whether name is a directory below dir that no link leads to:
// what a container wrote may lead anywhere.
func plain(dir, name string) bool {
	path := dir
	for part := range strings.SplitSeq(filepath.Clean(name), "/") {
		path = filepath.Join(path, part)
		if info, err := os.Lstat(path); err != nil || !info.IsDir() {
			return false
		}
	}
	return true
}
