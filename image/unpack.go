package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"strings"
	"syscall"
	"time"

	"torpor/host"
	"torpor/kernel/tree"
)

// What one layer may hold, far above any honest one. They stop an archive of a
// few kilobytes from filling the disk with holes or empty files.
const (
	maxLayerBytes   = 256 << 30
	maxLayerEntries = 10_000_000
)

// unpacker makes the entries of one layer's tar stream in a directory, in the
// form that overlayfs stacks.
//
// Names are relative to the directory however they begin; one with ".." is an
// error. A parent that is a symbolic link is followed inside the directory,
// as if it were the root. A later entry replaces an earlier one of its name,
// except that a directory stays if both are. Parents without an entry of their
// own get mode 0755, root and the time 0, so that a layer is the same everywhere.
type unpacker struct {
	ctx  context.Context
	tree *tree.Tree
	tar  *tar.Reader
	buf  []byte
	info layerInfo

	// Times of directories change while entries are made in them, so they are
	// set last. By cleaned name.
	dirTimes map[string]time.Time

	// The parent of the last entry, known to exist.
	lastParent string
}

// unpackLayer unpacks the tar stream r into the empty directory dir. It reads
// r to its end, which lies behind the end of the archive.
func unpackLayer(ctx context.Context, dir string, r io.Reader) (layerInfo, error) {
	t, err := tree.Open(dir)
	if err != nil {
		return layerInfo{}, err
	}
	defer t.Close()
	u := &unpacker{
		ctx: ctx, tree: t, tar: tar.NewReader(r), buf: make([]byte, streamBufferBytes),
		dirTimes: map[string]time.Time{".": time.Unix(0, 0)}, lastParent: ".",
	}
	if err := t.Set(".", tree.Meta{Mode: 0o755, ModTime: time.Unix(0, 0)}); err != nil {
		return layerInfo{}, err
	}
	if err := u.run(); err != nil {
		return layerInfo{}, err
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return layerInfo{}, fmt.Errorf("read archive: %w", err)
	}
	return u.info, nil
}

func (u *unpacker) run() error {
	for {
		h, err := u.tar.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		if err := u.ctx.Err(); err != nil {
			return context.Cause(u.ctx)
		}
		u.info.Entries++
		if u.info.Entries > maxLayerEntries {
			return fmt.Errorf("unpack: more than %d entries: %w", maxLayerEntries, host.ErrInvalid)
		}
		if err := u.entry(h); err != nil {
			return fmt.Errorf("unpack %.200q: %w", h.Name, err)
		}
	}
	for name, t := range u.dirTimes {
		if err := u.tree.SetTime(name, t); err != nil {
			return fmt.Errorf("unpack: %w", err)
		}
	}
	return nil
}

// entry makes what one header says.
func (u *unpacker) entry(h *tar.Header) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := cleanName(h.Name)
	if err != nil {
		return err
	}
	meta, err := metaOf(h)
	if err != nil {
		return err
	}
	if name == "." {
		return u.rootDir(h, meta)
	}
	if isAufsMark(name) {
		return nil
	}
	dir, base := path.Split(name)
	dir = path.Clean(dir)
	if hidden, ok := strings.CutPrefix(base, whiteoutPrefix); ok {
		return u.whiteout(dir, hidden)
	}
	if err := u.parent(dir); err != nil {
		return err
	}
	return u.make(name, h, meta)
}

func (u *unpacker) rootDir(h *tar.Header, meta tree.Meta) error {
	if h.Typeflag != tar.TypeDir {
		return fmt.Errorf("root is no directory: %w", host.ErrInvalid)
	}
	u.info.RootEntry = true
	u.dirTimes["."] = meta.ModTime
	return u.tree.Set(".", meta)
}

// make makes the entry name, whose parent exists.
func (u *unpacker) make(name string, h *tar.Header, meta tree.Meta) error {
	switch h.Typeflag {
	case tar.TypeDir:
		return u.directory(name, meta)
	case tar.TypeLink:
		return u.hardLink(name, h.Linkname)
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return u.file(name, h, meta)
	}
	if err := u.clear(name); err != nil {
		return err
	}
	var err error
	switch h.Typeflag {
	case tar.TypeSymlink:
		err = u.tree.Symlink(h.Linkname, name)
	case tar.TypeFifo:
		err = u.tree.Fifo(name)
	case tar.TypeChar, tar.TypeBlock:
		err = u.device(name, h)
	default:
		err = fmt.Errorf("entry of type %q: %w", h.Typeflag, host.ErrUnsupported)
	}
	if err != nil {
		return err
	}
	return u.tree.Set(name, meta)
}

func (u *unpacker) directory(name string, meta tree.Meta) error {
	kind, err := u.tree.Lstat(name)
	if err != nil {
		return err
	}
	if kind != tree.Directory {
		if err := u.newDirectory(name, kind); err != nil {
			return err
		}
	}
	u.dirTimes[name] = meta.ModTime
	return u.tree.Set(name, meta)
}

// newDirectory makes a directory in the place of what is there. Where a
// whiteout was, lower layers must go on not to show.
func (u *unpacker) newDirectory(name string, there tree.Kind) error {
	if there != tree.Missing {
		if err := u.tree.Remove(name); err != nil {
			return err
		}
	}
	if err := u.tree.Mkdir(name); err != nil {
		return err
	}
	if there == tree.Whiteout {
		return u.tree.SetOpaque(name)
	}
	return nil
}

func (u *unpacker) hardLink(name, target string) error {
	old, err := cleanName(target)
	if err != nil {
		return err
	}
	kind, err := u.tree.Lstat(old)
	if err != nil {
		return err
	}
	if kind == tree.Missing || kind == tree.Whiteout {
		return fmt.Errorf("hard link to %.200q, which is not in this layer: %w", target, host.ErrInvalid)
	}
	if kind == tree.Directory {
		return fmt.Errorf("hard link to the directory %.200q: %w", target, host.ErrInvalid)
	}
	if old == name {
		return nil
	}
	if err := u.clear(name); err != nil {
		return err
	}
	return u.tree.Link(old, name)
}

func (u *unpacker) device(name string, h *tar.Header) error {
	if h.Devmajor < 0 || h.Devminor < 0 || h.Devmajor > math.MaxInt32 || h.Devminor > math.MaxInt32 {
		return fmt.Errorf("device %d:%d: %w", h.Devmajor, h.Devminor, host.ErrInvalid)
	}
	major, minor := uint32(h.Devmajor), uint32(h.Devminor)
	if h.Typeflag == tar.TypeBlock {
		return u.tree.BlockDevice(name, major, minor)
	}
	if major == 0 && minor == 0 {
		return fmt.Errorf("character device 0:0, which overlayfs takes for a removed name: %w", host.ErrUnsupported)
	}
	return u.tree.CharDevice(name, major, minor)
}

func (u *unpacker) file(name string, h *tar.Header, meta tree.Meta) error {
	if h.Size < 0 || h.Size > maxLayerBytes-u.info.Bytes {
		return fmt.Errorf("file of %d bytes makes the layer larger than %d: %w", h.Size, int64(maxLayerBytes), host.ErrInvalid)
	}
	f, err := u.tree.Create(name)
	if errors.Is(err, fs.ErrExist) {
		if err := u.clear(name); err != nil {
			return err
		}
		f, err = u.tree.Create(name)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := u.content(f, isSparse(h)); err != nil {
		return err
	}
	u.info.Bytes += h.Size
	if err := tree.SetFile(f, meta); err != nil {
		return err
	}
	return f.Close()
}

// clear removes what has the name, if anything.
func (u *unpacker) clear(name string) error {
	kind, err := u.tree.Lstat(name)
	if err != nil || kind == tree.Missing {
		return err
	}
	u.lastParent = "." // may be what is removed
	return u.tree.Remove(name)
}

// parent makes sure that dir is a directory of the tree, by links or not.
func (u *unpacker) parent(dir string) error {
	if dir == u.lastParent {
		return nil
	}
	if err := u.parentDepth(dir, 0); err != nil {
		return err
	}
	u.lastParent = dir
	return nil
}

// maxLinkDepth is how many links to nothing a parent may lead through.
const maxLinkDepth = 40

func (u *unpacker) parentDepth(dir string, depth int) error {
	if dir == "." {
		return nil
	}
	if ok, err := u.tree.IsDir(dir); ok || err != nil {
		return err
	}
	if depth > maxLinkDepth {
		return syscall.ELOOP
	}
	if err := u.parentDepth(path.Dir(dir), depth); err != nil {
		return err
	}
	kind, err := u.tree.Lstat(dir)
	if err != nil {
		return err
	}
	switch kind {
	case tree.Missing, tree.Whiteout:
		u.dirTimes[dir] = time.Unix(0, 0)
		return u.newDirectory(dir, kind)
	case tree.Symlink:
		// A link to what this layer does not have: a lower one may.
		target, err := u.tree.Readlink(dir)
		if err != nil {
			return err
		}
		if !path.IsAbs(target) {
			target = path.Join("/", path.Dir(dir), target)
		}
		return u.parentDepth(relative(target), depth+1)
	}
	return fmt.Errorf("parent %.200q is no directory: %w", dir, host.ErrInvalid)
}
