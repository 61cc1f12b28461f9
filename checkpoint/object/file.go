package object

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"torpor/host"
	"torpor/kernel/openfile"
)

// device is a character device without state.
type device struct{ major, minor uint64 }

// plainDevices are the devices that a path opens anew: null, zero, full, random
// and urandom.
var plainDevices = map[device]bool{{1, 3}: true, {1, 5}: true, {1, 7}: true, {1, 8}: true, {1, 9}: true}

func deviceOf(st *syscall.Stat_t) device {
	return device{st.Rdev >> 8 & 0xfff, st.Rdev&0xff | st.Rdev>>12&^0xff}
}

// processFile finds what a file below /proc belongs to. Init is in every
// container, the tree is not there yet when its files are made.
var processFile = regexp.MustCompile(`^/proc/([0-9]+)(/|$)`)

// volatile file systems make their files up: size and time say nothing, and
// the number of a file may change when nobody looks.
func volatile(system openfile.FileSystem) bool {
	switch system {
	case openfile.Procfs, openfile.Sysfs, openfile.Cgroupfs, openfile.Cgroup2fs:
		return true
	}
	return false
}

// describeFile describes what has, or had, a path.
func (d *describer) describeFile(i int, system openfile.FileSystem) error {
	o, s, st := &d.open[i], &d.specs[i], &d.stats[i]
	leads, err := d.leadsTo(o.Target, st, system)
	if err != nil {
		return err
	}
	kind := st.Mode & syscall.S_IFMT
	stream := d.streams.find(st)
	switch {
	case kind == syscall.S_IFCHR && stream >= 0 && !plainDevices[deviceOf(st)], !leads && stream >= 0:
		s.Kind, s.Standard = KindStandard, stream
		return nil
	case kind == syscall.S_IFCHR && !plainDevices[deviceOf(st)], kind == syscall.S_IFBLK:
		d.refuse(i, "the device %s", o.Target)
		return nil
	case !leads && kind == syscall.S_IFREG:
		return d.describeContent(i, system)
	case !leads:
		d.refuse(i, "%s, which no path leads to any more", o.Target)
		return nil
	case !utf8.ValidString(o.Target):
		d.refuse(i, "the file %q, whose name is not UTF-8", o.Target)
		return nil
	}
	if kind == syscall.S_IFIFO {
		return d.describeNamedPipe(i)
	}
	return d.describePath(i, system)
}

// describePath describes a file that its path opens again.
func (d *describer) describePath(i int, system openfile.FileSystem) (err error) {
	o, s, st := &d.open[i], &d.specs[i], &d.stats[i]
	if m := processFile.FindStringSubmatch(o.Target); m != nil && m[1] != "1" && system == openfile.Procfs {
		d.refuse(i, "%s, a file of process %s", o.Target, m[1])
		return nil
	}
	s.Kind, s.File = KindFile, &FileSpec{Path: o.Target}
	if s.Flags&openfile.OpenPath != 0 {
		return nil
	}
	kind := st.Mode & syscall.S_IFMT
	if kind == syscall.S_IFREG {
		s.Flags &^= syscall.O_DIRECTORY // a part of O_TMPFILE
		readOnly := s.Flags&syscall.O_ACCMODE == syscall.O_RDONLY
		if !volatile(system) && (readOnly || o.Use != UseDescriptor) {
			s.File.Fixed, s.File.SizeBytes, s.File.ModTime = true, st.Size, modTime(st)
		}
	}
	if kind == syscall.S_IFREG || kind == syscall.S_IFDIR {
		if s.File.OffsetBytes, err = syscall.Seek(o.FD, 0, 1); errors.Is(err, syscall.ESPIPE) {
			err = nil
		}
	}
	return err
}

func modTime(st *syscall.Stat_t) time.Time { return time.Unix(st.Mtim.Unix()).UTC() }

// leadsTo reports whether a path of the container leads to a file.
func (d *describer) leadsTo(path string, st *syscall.Stat_t, system openfile.FileSystem) (bool, error) {
	if !strings.HasPrefix(path, "/") || strings.ContainsRune(path, 0) {
		return false, nil
	}
	fd, err := d.root.Open(path, openfile.OpenPath|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENAMETOOLONG) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer syscall.Close(fd)
	var there syscall.Stat_t
	if err := syscall.Fstat(fd, &there); err != nil {
		return false, err
	}
	return volatile(system) && there.Dev == st.Dev || openfile.IdentityOf(&there) == openfile.IdentityOf(st), nil
}

// makeFile opens a file by its path, but looks at it before: opening a device
// or a pipe can do more than open.
func (m *maker) makeFile(s *Spec) (fd int, err error) {
	found, err := m.root.Open(s.File.Path, openfile.OpenPath|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return -1, err
	}
	defer syscall.Close(found)
	var st syscall.Stat_t
	if err := syscall.Fstat(found, &st); err != nil {
		return -1, err
	}
	if err := s.File.check(&st); err != nil {
		return -1, err
	}
	switch kind := st.Mode & syscall.S_IFMT; {
	case s.Flags&openfile.OpenPath != 0:
		return m.root.Open(s.File.Path, s.Flags, 0)
	case kind == syscall.S_IFREG, kind == syscall.S_IFDIR, kind == syscall.S_IFCHR && plainDevices[deviceOf(&st)]:
		fd, err = m.root.Reopen(found, s.openFlags())
	case kind == syscall.S_IFIFO:
		fd, err = m.openNamedPipe(found, s)
	default:
		return -1, fmt.Errorf("open %s: %w: it is now a file of another kind", s.File.Path, host.ErrCorrupt)
	}
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", s.File.Path, err)
	}
	if err := s.place(fd, s.File.OffsetBytes); err != nil {
		syscall.Close(fd)
		return -1, fmt.Errorf("open %s: %w", s.File.Path, err)
	}
	return fd, nil
}

// openFlags are those to open with, so that nothing waits. O_ASYNC has to be set
// afterwards to mean anything.
func (s *Spec) openFlags() int { return s.Flags&^syscall.O_ASYNC | syscall.O_NONBLOCK }

// place gives a file that was opened with openFlags its flags and offset.
func (s *Spec) place(fd int, offset int64) error {
	if s.Flags&(syscall.O_NONBLOCK|syscall.O_ASYNC) != syscall.O_NONBLOCK {
		if err := openfile.SetFlags(fd, s.Flags); err != nil {
			return err
		}
	}
	if offset == 0 {
		return nil
	}
	_, err := syscall.Seek(fd, offset, 0)
	return err
}

// check compares a file that must be unchanged.
func (f *FileSpec) check(st *syscall.Stat_t) error {
	switch {
	case !f.Fixed:
		return nil
	case st.Mode&syscall.S_IFMT != syscall.S_IFREG:
		return fmt.Errorf("open %s: %w: it is no regular file any more", f.Path, host.ErrCorrupt)
	case st.Size != f.SizeBytes:
		return fmt.Errorf("open %s: %w: it has %d bytes now, not %d", f.Path, host.ErrCorrupt, st.Size, f.SizeBytes)
	case !modTime(st).Equal(f.ModTime):
		return fmt.Errorf("open %s: %w: it was changed at %s, not %s", f.Path, host.ErrCorrupt, modTime(st).Format(time.RFC3339Nano), f.ModTime.Format(time.RFC3339Nano))
	}
	return nil
}
