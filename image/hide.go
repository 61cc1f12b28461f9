package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"torpor/kernel/tree"
)

// hide puts a whiteout into the upper directory for each host path that is
// below base.
func hide(base, upper string, hidden []string) error {
	if len(hidden) == 0 {
		return nil
	}
	base, err := filepath.EvalSymlinks(base)
	if err != nil {
		return err
	}
	t, err := tree.Open(upper)
	if err != nil {
		return err
	}
	defer t.Close()
	for _, p := range hidden {
		real, err := filepath.EvalSymlinks(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("hide %s: %w", p, err)
		}
		name, err := filepath.Rel(base, real)
		if err != nil || name == "." || name == ".." || strings.HasPrefix(name, "../") {
			continue
		}
		if err := hideName(t, base, name); err != nil {
			return fmt.Errorf("hide %s: %w", p, err)
		}
	}
	return nil
}

// hideName hides base/name. What the upper directory has of that name is the
// container's own, and stays.
func hideName(t *tree.Tree, base, name string) error {
	parts := strings.Split(name, "/")
	for i := 1; i < len(parts); i++ {
		if ok, err := copyDir(t, base, strings.Join(parts[:i], "/")); !ok || err != nil {
			return err
		}
	}
	kind, err := t.Lstat(name)
	if err != nil {
		return err
	}
	switch kind {
	case tree.Missing:
		return t.Whiteout(name)
	case tree.Directory:
		return t.SetOpaque(name)
	}
	return nil
}

// copyDir makes a directory that looks as the one in base, for it is the one
// that will be seen. One that is there stays. It returns false if the container
// has put something else in its place, so that nothing of base shows there.
func copyDir(t *tree.Tree, base, name string) (bool, error) {
	kind, err := t.Lstat(name)
	if err != nil || kind != tree.Missing {
		return kind == tree.Directory, err
	}
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(base, name), &st); err != nil {
		return false, &os.PathError{Op: "stat", Path: filepath.Join(base, name), Err: err}
	}
	if err := t.Mkdir(name); err != nil {
		return false, err
	}
	return true, t.Set(name, tree.Meta{Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, ModTime: time.Unix(st.Mtim.Unix())})
}
