package object

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"torpor/host"
	"torpor/kernel/openfile"
)

// contentMost bounds what Describe copies; more is refused. Holes are free.
const contentMost = 512 << 20

// contents numbers the files whose content was copied.
type contents struct {
	ids        map[openfile.Identity]int
	totalBytes int64
}

// add counts content and refuses what is too much.
func (c *contents) add(d *describer, i int, name string, lenBytes int64) error {
	if c.totalBytes += lenBytes; c.totalBytes > contentMost {
		c.totalBytes -= lenBytes
		d.refuse(i, "%s, with %d MB of content; a checkpoint takes %d MB in all", name, lenBytes>>20, contentMost>>20)
		return errTooMuch
	}
	return nil
}

// errTooMuch ends a description that was refused.
var errTooMuch = errors.New("too much content")

func contentName(id int) string { return "content-" + strconv.Itoa(id) }

const (
	deletedMark = " (deleted)"
	memoryMark  = "/memfd:"
)

// describeContent copies a regular file that no path leads to.
func (d *describer) describeContent(i int, system openfile.FileSystem) error {
	o, s, st := &d.open[i], &d.specs[i], &d.stats[i]
	if st.Nlink > 0 && (s.writes() || !strings.HasPrefix(o.Target, "/")) {
		d.refuse(i, "%s, which the container's paths do not lead to", o.Target)
		return nil
	}
	name := strings.TrimSuffix(o.Target, deletedMark)
	s.Kind, s.Flags = KindContent, s.Flags&^syscall.O_DIRECTORY
	c := &ContentSpec{Name: []byte(strings.TrimPrefix(name, memoryMark)), SizeBytes: st.Size, Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid,
		Memory: system == openfile.Tmpfs}
	s.Content = c
	if c.Memory {
		c.Seals, _ = openfile.Seals(o.FD)
	}
	var err error
	if s.Flags&openfile.OpenPath == 0 {
		if c.OffsetBytes, err = syscall.Seek(o.FD, 0, 1); err != nil {
			return err
		}
	}
	id, known := d.contents.ids[openfile.IdentityOf(st)]
	if !known {
		id = len(d.contents.ids)
		d.contents.ids[openfile.IdentityOf(st)] = id
		err = d.copyContent(i, id)
	}
	c.ID = id
	return err
}

// copyContent writes the content of an open file into the directory, sparse.
func (d *describer) copyContent(i, id int) (err error) {
	from, err := d.root.Reopen(d.open[i].FD, syscall.O_RDONLY|syscall.O_NONBLOCK) // with an offset of its own
	if err != nil {
		return err
	}
	defer syscall.Close(from)
	extents, err := openfile.Extents(from)
	if err != nil {
		return err
	}
	if err := d.contents.add(d, i, d.open[i].Target, total(extents)); err != nil {
		return err
	}
	to, err := os.OpenFile(filepath.Join(d.dir, contentName(id)), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	if err := to.Truncate(d.stats[i].Size); err != nil {
		return err
	}
	return openfile.Copy(int(to.Fd()), from, extents)
}

func total(extents []openfile.Extent) int64 {
	var n int64
	for _, e := range extents {
		n += e.End - e.Start
	}
	return n
}

// makeContent makes a private copy of the content and opens it for every Spec
// that has it; c is the first of them. Memory files come back as such, others
// as unlinked files in the container's root file system or, where that has
// none, as memory files too.
func (m *maker) makeContent(c *ContentSpec) (err error) {
	base, memory, err := m.newContent(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, syscall.Close(base)) }()
	if err := m.loadContent(base, c); err != nil {
		return err
	}
	if err := errors.Join(syscall.Fchown(base, int(c.UID), int(c.GID)), syscall.Fchmod(base, c.Mode)); err != nil {
		return err
	}
	for i := range m.specs {
		s := &m.specs[i]
		if s.Same >= 0 || s.Kind != KindContent || s.Content.ID != c.ID {
			continue
		}
		if m.fds[i], err = m.root.Reopen(base, s.openFlags()); err != nil {
			return err
		}
		if s.Flags&openfile.OpenPath != 0 {
			continue
		}
		if err := s.place(m.fds[i], s.Content.OffsetBytes); err != nil {
			return err
		}
	}
	if memory && c.Seals != 0 {
		return openfile.Seal(base, c.Seals)
	}
	return nil
}

// newContent makes an empty file without a name.
func (m *maker) newContent(c *ContentSpec) (fd int, memory bool, err error) {
	if !c.Memory {
		fd, err = m.root.Open("/", openfile.OpenTmpfile|syscall.O_RDWR, 0o600)
		if err == nil {
			return fd, false, nil
		}
	}
	fd, err = openfile.NewMemory(memoryName(string(c.Name)))
	return fd, true, err
}

// memoryNameMost is the kernel's limit for names of memory files.
const memoryNameMost = 249

func memoryName(name string) string { return name[max(0, len(name)-memoryNameMost):] }

// loadContent copies the file of the checkpoint's directory.
func (m *maker) loadContent(to int, c *ContentSpec) error {
	from, err := m.openDir(contentName(c.ID))
	if err != nil {
		return err
	}
	defer syscall.Close(from)
	var st syscall.Stat_t
	if err := syscall.Fstat(from, &st); err != nil {
		return err
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFREG || st.Size != c.SizeBytes {
		return c.corrupt("it has %d bytes, not %d", st.Size, c.SizeBytes)
	}
	extents, err := openfile.Extents(from)
	if err != nil {
		return err
	}
	if n := total(extents); n > contentMost {
		return c.corrupt("it holds %d bytes", n)
	}
	if err := syscall.Ftruncate(to, c.SizeBytes); err != nil {
		return err
	}
	return openfile.Copy(to, from, extents)
}

// corrupt says that content is not what its Spec says.
func (c *ContentSpec) corrupt(format string, args ...any) error {
	return fmt.Errorf("load content-%d: %w: %s", c.ID, host.ErrCorrupt, fmt.Sprintf(format, args...))
}
