package image

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"slices"
	"strings"

	"torpor/host"
	"torpor/kernel/tree"
)

// Whiteouts in archives (OCI image specification, layer.md).
const (
	whiteoutPrefix = ".wh."
	aufsPrefix     = ".wh..wh." // marks of aufs itself, of which one is used:
	opaqueMark     = ".wh..opq" // after whiteoutPrefix
)

// cleanName returns an entry's name relative to the layer's root; "." is the
// root.
func cleanName(name string) (string, error) {
	if strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("name holds a zero byte: %w", host.ErrInvalid)
	}
	if slices.Contains(strings.Split(name, "/"), "..") {
		return "", fmt.Errorf("name holds \"..\": %w", host.ErrInvalid)
	}
	return relative(name), nil
}

// relative cleans a path and makes it relative to the root it is seen from.
func relative(name string) string {
	name = path.Clean("/" + name)[1:]
	if name == "" {
		return "."
	}
	return name
}

// isAufsMark reports whether a name is, or is below, one that aufs keeps for
// itself and that has no meaning in an image.
func isAufsMark(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(part, aufsPrefix) && part != whiteoutPrefix+opaqueMark {
			return true
		}
	}
	return false
}

// whiteout marks hidden in the directory dir as removed, or dir as opaque. It
// speaks of lower layers only: what this layer has of that name stays.
func (u *unpacker) whiteout(dir, hidden string) error {
	if hidden == opaqueMark {
		if dir == "." {
			u.info.OpaqueRoot = true
			return nil
		}
		if err := u.parent(dir); err != nil {
			return err
		}
		return u.tree.SetOpaque(dir)
	}
	if hidden == "" || hidden == "." || hidden == ".." {
		return fmt.Errorf("whiteout of nothing: %w", host.ErrInvalid)
	}
	if err := u.parent(dir); err != nil {
		return err
	}
	name := path.Join(dir, hidden)
	kind, err := u.tree.Lstat(name)
	if err != nil {
		return err
	}
	switch kind {
	case tree.Missing:
		return u.tree.Whiteout(name)
	case tree.Directory:
		return u.tree.SetOpaque(name)
	}
	return nil
}

// metaOf returns the metadata that a header says, or an error for numbers that
// no file has.
func metaOf(h *tar.Header) (tree.Meta, error) {
	for _, id := range []int{h.Uid, h.Gid} {
		// The last number means "no change" to the kernel.
		if id < 0 || int64(id) >= math.MaxUint32 {
			return tree.Meta{}, fmt.Errorf("owner %d:%d: %w", h.Uid, h.Gid, host.ErrInvalid)
		}
	}
	m := tree.Meta{Mode: uint32(h.Mode & 0o7777), UID: uint32(h.Uid), GID: uint32(h.Gid), ModTime: h.ModTime}
	for key, value := range h.PAXRecords {
		attr, ok := strings.CutPrefix(key, "SCHILY.xattr.")
		if !ok || !keptXattr(attr) {
			continue
		}
		if m.Xattrs == nil {
			m.Xattrs = map[string]string{}
		}
		m.Xattrs[attr] = value
	}
	return m, nil
}

// keptXattr reports whether an extended attribute is taken over: those that
// belong to the file. Labels of a security module belong to the machine that
// made the archive, and trusted.overlay.* would speak to overlayfs.
func keptXattr(key string) bool {
	switch key {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(key, "user.") && !strings.HasPrefix(key, "user.overlay.")
}

func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// content writes the current entry's bytes to f. The holes of a sparse file
// stay holes.
func (u *unpacker) content(f *os.File, sparse bool) error {
	var size int64
	for {
		n, err := u.tar.Read(u.buf)
		size += int64(n)
		if writeErr := writeChunk(f, u.buf[:n], sparse); writeErr != nil {
			return writeErr
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		if u.ctx.Err() != nil {
			return context.Cause(u.ctx)
		}
	}
	if sparse {
		return f.Truncate(size) // it may end in a hole
	}
	return nil
}

func writeChunk(f *os.File, chunk []byte, sparse bool) error {
	if sparse && len(bytes.Trim(chunk, "\x00")) == 0 {
		_, err := f.Seek(int64(len(chunk)), io.SeekCurrent)
		return err
	}
	_, err := f.Write(chunk)
	return err
}
