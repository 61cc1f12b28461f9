package tree

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// resolveFlags keep a lookup inside the tree. A mount in the tree would be a
// mistake of the owner, a magic link a trick of whoever wrote the name.
const resolveFlags = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// openTries bounds the lookups repeated because of EAGAIN, which openat2 gives
// when any rename of the machine happened while it followed "..".
const openTries = 10000

// Tree is an open directory in which entries are made. Close it.
type Tree struct {
	path string
	root int // O_PATH

	// The parent looked up last. Archives name a directory's entries one after
	// the other, which saves nearly all lookups. Dropped by every removal.
	cachedDir string
	cachedFD  int
}

// Open opens the directory dir, which may be reached by symbolic links.
func Open(dir string) (*Tree, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open tree %s: %w", dir, err)
	}
	return &Tree{path: dir, root: fd, cachedFD: -1}, nil
}

// Close releases the descriptors. The Tree is not usable afterwards.
func (t *Tree) Close() error {
	t.forget()
	err := unix.Close(t.root)
	t.root = -1
	return err
}

func (t *Tree) forget() {
	if t.cachedFD >= 0 {
		unix.Close(t.cachedFD)
		t.cachedFD = -1
	}
}

// openDir looks dir up inside the tree, following links, as an O_PATH
// descriptor that the caller closes. "." is the tree itself.
func (t *Tree) openDir(dir string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: resolveFlags}
	for range openTries {
		fd, err := unix.Openat2(t.root, dir, &how)
		if err == unix.EAGAIN || err == unix.EINTR {
			continue
		}
		return fd, err
	}
	return -1, unix.EAGAIN
}

// parent returns the descriptor of name's directory, which the Tree keeps, and
// name's last component.
func (t *Tree) parent(name string) (int, string, error) {
	dir, base := path.Split(name)
	dir = path.Clean(dir)
	if base == "" || base == "." || base == ".." || strings.ContainsRune(base, 0) {
		return -1, "", unix.EINVAL
	}
	if t.cachedFD >= 0 && t.cachedDir == dir {
		return t.cachedFD, base, nil
	}
	fd, err := t.openDir(dir)
	if err != nil {
		return -1, "", err
	}
	t.forget()
	t.cachedDir, t.cachedFD = dir, fd
	return fd, base, nil
}

// IsDir reports whether name is a directory once links are followed inside the
// tree. A link to nothing and a missing entry are not.
func (t *Tree) IsDir(name string) (bool, error) {
	fd, err := t.openDir(path.Clean(name))
	switch {
	case err == nil:
		unix.Close(fd)
		return true, nil
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP):
		return false, nil
	}
	return false, wrap("look up", name, err)
}

// Remove removes name and everything below it; it follows no link. A missing
// entry is no error.
func (t *Tree) Remove(name string) error {
	fd, base, err := t.parent(name)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return wrap("remove", name, err)
	}
	defer t.forget() // what was cached may be gone
	err = unix.Unlinkat(fd, base, 0)
	if err == unix.EISDIR || err == unix.EPERM {
		// RemoveAll opens the parent by path and from there on uses
		// descriptors without following links.
		return os.RemoveAll(procPath(fd) + "/" + base)
	}
	if err != nil && err != unix.ENOENT {
		return wrap("remove", name, err)
	}
	return nil
}

func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

func wrap(verb, name string, err error) error {
	return fmt.Errorf("%s %q: %w", verb, name, err)
}
