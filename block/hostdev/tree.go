package hostdev

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"torpor/block"
)

// tree is the file system besides data: a directory with one file. The kernel
// may keep nothing of it in its caches: all times are 0.
type tree struct {
	fuse.RawFileSystem // answers ENOSYS, or does nothing
	server             *server
	name               string
}

// fileNode is the file's number, next to fuse.FUSE_ROOT_ID.
const fileNode = 2

func newTree(s *server, name string) *tree {
	return &tree{RawFileSystem: fuse.NewDefaultRawFileSystem(), server: s, name: name}
}

// mountOptions are what the kernel is told in answer to INIT.
func mountOptions() *fuse.MountOptions {
	return &fuse.MountOptions{
		// Without it, direct I/O of the loop driver is served one by one.
		ExtraCapabilities: fuse.CAP_ASYNC_DIO,
		DisabledCapabilities: fuse.CAP_AUTO_INVAL_DATA | fuse.CAP_READDIRPLUS | fuse.CAP_PASSTHROUGH |
			fuse.CAP_NO_OPEN_SUPPORT,
		MaxWrite:      maxDataBytes,
		MaxBackground: 256,
		Name:          subtype,
	}
}

// Lookup finds the file.
func (t *tree) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if in.NodeId != fuse.FUSE_ROOT_ID || name != t.name {
		return fuse.ENOENT
	}
	out.NodeId = fileNode
	out.Attr = t.attr(fileNode)
	return fuse.OK
}

// GetAttr describes the file or the directory.
func (t *tree) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.Attr = t.attr(in.NodeId)
	return fuse.OK
}

func (t *tree) attr(node uint64) fuse.Attr {
	if node == fuse.FUSE_ROOT_ID {
		return fuse.Attr{Ino: node, Mode: syscall.S_IFDIR | 0o500, Nlink: 2, Blksize: block.BlockBytes}
	}
	size := uint64(t.server.sizeBytes.Load())
	mode := uint32(syscall.S_IFREG | 0o600)
	if t.server.readOnly {
		mode = syscall.S_IFREG | 0o400
	}
	return fuse.Attr{Ino: node, Mode: mode, Nlink: 1, Size: size, Blocks: size / 512, Blksize: block.BlockBytes}
}

// Open lets the file be read and written without the page cache.
func (t *tree) Open(_ <-chan struct{}, _ *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES
	return fuse.OK
}

// StatFs says in what granularity the loop device discards.
func (t *tree) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	*out = fuse.StatfsOut{
		Blocks: uint64(t.server.sizeBytes.Load()) / block.BlockBytes,
		Bsize:  block.BlockBytes, Frsize: block.BlockBytes, NameLen: 255, Files: 1,
	}
	return fuse.OK
}
