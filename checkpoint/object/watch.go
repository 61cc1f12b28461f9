package object

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"

	"torpor/kernel/eventfile"
	"torpor/kernel/openfile"
)

// searchMost bounds the files that are looked at for one that is watched.
const searchMost = 200000

// watched is one watch as fdinfo shows it, with numbers that are the kernel's
// own.
type watched struct {
	number     int
	inode, dev uint64
	mask       uint32
	handleKind int32
	handle     []byte
}

// parseWatched parses "1 ino:2a sdev:800001 mask:800afce ignored_mask:0
// fhandle-bytes:8 fhandle-type:1 f_handle:2a00000000000000".
func parseWatched(line string) (w watched, err error) {
	var ignored, bytes int
	var handle string
	n, err := fmt.Sscanf(line, "%d ino:%x sdev:%x mask:%x ignored_mask:%x fhandle-bytes:%x fhandle-type:%x f_handle:%s",
		&w.number, &w.inode, &w.dev, &w.mask, &ignored, &bytes, &w.handleKind, &handle)
	if n < 5 {
		return w, fmt.Errorf("parse watch: %q: %w", line, err)
	}
	w.handle, _ = hex.DecodeString(handle) // without it the file is searched
	return w, nil
}

// device is the kernel's number as mountinfo shows it.
func (w *watched) device() string { return fmt.Sprintf("%d:%d", w.dev>>20, w.dev&0xfffff) }

// describeWatches describes an inotify descriptor.
func (d *describer) describeWatches(i int, info openfile.Info) error {
	unread, err := eventfile.Unread(d.open[i].FD)
	if err != nil {
		return err
	}
	if unread > 0 {
		d.refuse(i, "inotify with unread events")
		return nil
	}
	for _, line := range info.All("inotify wd") {
		w, err := parseWatched(line)
		if err != nil {
			return err
		}
		path, err := d.pathOf(&w)
		if err != nil {
			return err
		}
		switch {
		case path == "":
			d.refuse(i, "inotify that watches a file whose path is not found (inode %d)", w.inode)
		case !utf8.ValidString(path):
			d.refuse(i, "inotify that watches %q, whose name is not UTF-8", path)
		case w.number > eventfile.WatchesMost:
			d.refuse(i, "inotify with watch number %d", w.number)
		}
		d.specs[i].Watches = append(d.specs[i].Watches, WatchSpec{Number: w.number, Path: path, Mask: w.mask & eventfile.WatchMask})
	}
	slices.SortFunc(d.specs[i].Watches, func(a, b WatchSpec) int { return a.Number - b.Number })
	return nil
}

// pathOf finds a path in the container that leads to a watched file; "": none.
func (d *describer) pathOf(w *watched) (string, error) {
	mounts, err := mountPoints(d.container.PID, w.device())
	if err != nil {
		return "", err
	}
	for _, mount := range mounts {
		if path := d.byHandle(mount, w); path != "" {
			return path, nil
		}
	}
	for _, mount := range mounts {
		if path, err := d.search(mount, w); path != "" || err != nil {
			return path, err
		}
	}
	return "", nil
}

// mountPoints lists where a file system is mounted.
func mountPoints(pid int, device string) ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	var points []string
	for line := range strings.Lines(string(b)) {
		if fields := strings.Fields(line); len(fields) > 4 && fields[2] == device {
			points = append(points, unescaped.Replace(fields[4]))
		}
	}
	return points, nil
}

// unescaped undoes what mountinfo does to names.
var unescaped = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// byHandle asks the file system, as far as it can be asked.
func (d *describer) byHandle(mount string, w *watched) string {
	if len(w.handle) == 0 {
		return ""
	}
	at, err := d.root.Open(mount, syscall.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer syscall.Close(at)
	fd, err := openfile.OpenHandle(at, w.handleKind, w.handle)
	if err != nil {
		return ""
	}
	defer syscall.Close(fd)
	path, err := openfile.PathOf(fd)
	var st syscall.Stat_t
	if err != nil || syscall.Fstat(fd, &st) != nil {
		return ""
	}
	if leads, err := d.leadsTo(path, &st, 0); err != nil || !leads || !d.watches(path, w) {
		return ""
	}
	return path
}

// errFound ends a search.
var errFound = errors.New("found")

// search looks through a mounted file system for a file with the number.
func (d *describer) search(mount string, w *watched) (string, error) {
	root := fmt.Sprintf("/proc/%d/root", d.container.PID)
	found, left := "", searchMost
	err := filepath.WalkDir(root+mount, func(path string, entry fs.DirEntry, err error) error {
		if left--; left < 0 {
			return errFound
		}
		if err != nil {
			return nil // unreadable, or gone
		}
		info, err := entry.Info()
		if err != nil {
			return nil
		}
		inside := strings.TrimPrefix(path, root)
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Ino == w.inode && d.watches(inside, w) {
			found = inside
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return found, err
}

// watches reports whether a watch of path would be one of the same file.
func (d *describer) watches(path string, w *watched) bool {
	outside := fmt.Sprintf("/proc/%d/root%s", d.container.PID, path)
	fd, err := eventfile.NewWatches([]eventfile.Watch{{Number: 1, Path: outside, Mask: w.mask}})
	if err != nil {
		return false
	}
	defer syscall.Close(fd)
	info, err := openfile.ReadInfo(os.Getpid(), fd)
	if err != nil {
		return false
	}
	for _, line := range info.All("inotify wd") {
		if probe, err := parseWatched(line); err == nil {
			return probe.inode == w.inode && probe.dev == w.dev
		}
	}
	return false
}

// makeWatches runs in the container's root directory.
func makeWatches(specs []WatchSpec) (int, error) {
	watches := make([]eventfile.Watch, len(specs))
	for i, s := range specs {
		watches[i] = eventfile.Watch(s)
	}
	return eventfile.NewWatches(watches)
}
