package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"torpor/host"
)

// maxArchiveEntries bounds the table of an image archive, which holds a few
// files for each layer.
const maxArchiveEntries = 100_000

// archive is a tar file whose members are read in any order.
type archive struct {
	file    *os.File
	remove  bool // it is a decompressed copy of our own
	members map[string]member
}

// member is one file of an archive.
type member struct {
	offset, size int64
	linkTo       string // a further name of that member, if not ""
}

// openArchive reads the table of a tar file. A compressed one is first
// decompressed into tmpDir.
func openArchive(ctx context.Context, file, tmpDir string) (*archive, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	a := &archive{file: f, members: map[string]member{}}
	if err := a.makePlain(ctx, tmpDir); err != nil {
		a.close()
		return nil, err
	}
	if err := a.readTable(ctx); err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

func (a *archive) close() {
	a.file.Close()
	if a.remove {
		os.Remove(a.file.Name())
	}
}

// makePlain replaces the file by a decompressed copy if it is compressed.
func (a *archive) makePlain(ctx context.Context, tmpDir string) error {
	plain, err := decompress(a.file)
	if err != nil {
		return err
	}
	defer plain.Close()
	if !isCompressed(a.file) {
		return nil
	}
	copied, err := os.CreateTemp(tmpDir, "archive-")
	if err != nil {
		return err
	}
	_, err = io.Copy(copied, &contextReader{ctx, plain})
	if err != nil {
		copied.Close()
		os.Remove(copied.Name())
		return fmt.Errorf("decompress: %w", err)
	}
	a.file.Close()
	a.file, a.remove = copied, true
	return nil
}

func isCompressed(f *os.File) bool {
	head := make([]byte, 6)
	n, _ := f.ReadAt(head, 0)
	return magicOf(head[:n]) != plainStream
}

// readTable notes where each member lies. A tar reader reads whole blocks and
// no more, so the file's position behind a header is where the content begins.
func (a *archive) readTable(ctx context.Context) error {
	if _, err := a.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	r := tar.NewReader(a.file)
	for n := 0; ; n++ {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("it is no directory and can not be read as a tar archive: %w: %w", host.ErrInvalid, err)
		}
		if n >= maxArchiveEntries {
			return fmt.Errorf("archive has more than %d entries, too many for images; if it is a root file system, unpack it into a directory with tar and use that as x-torpor rootfs of a service: %w", maxArchiveEntries, host.ErrInvalid)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := a.note(h); err != nil {
			return err
		}
	}
}

func (a *archive) note(h *tar.Header) error {
	name := relative(h.Name)
	switch h.Typeflag {
	case tar.TypeReg:
		offset, err := a.file.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		if !isSparse(h) { // whose content is not in one piece
			a.members[name] = member{offset: offset, size: h.Size}
		}
	case tar.TypeSymlink:
		a.members[name] = member{linkTo: relative(path.Join("/", path.Dir(name), h.Linkname))}
	case tar.TypeLink:
		a.members[name] = member{linkTo: relative(h.Linkname)}
	}
	return nil
}

func (a *archive) open(name string) (io.ReadCloser, int64, error) {
	name = relative(name)
	for range maxLinkDepth {
		m, ok := a.members[name]
		if !ok {
			return nil, 0, fmt.Errorf("find %s in archive: %w", name, fs.ErrNotExist)
		}
		if m.linkTo == "" {
			return io.NopCloser(io.NewSectionReader(a.file, m.offset, m.size)), m.size, nil
		}
		name = m.linkTo
	}
	return nil, 0, fmt.Errorf("find %s in archive: %w", name, errors.New("links lead in a circle"))
}

// contextReader ends when its context does.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}
