package fusedev

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"torpor/host"
)

// Abort ends the connection of the file system that is mounted at dir: all its
// requests fail, now and later (ENOTCONN), and readers get io.EOF, though the
// file system may be mounted in other namespaces too. It is for when nobody
// answers any more, or nobody asks, and does not wait. Here it is unmounted
// too, unless it is in use: unix.EBUSY.
func Abort(dir string) error {
	// A forced unmount aborts first, whatever comes of it.
	if err := unix.Unmount(dir, unix.MNT_FORCE|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("abort FUSE file system %s: %w", dir, err)
	}
	return nil
}

// Mounted is what mountinfo says of a mounted FUSE file system.
type Mounted struct {
	Dir     string
	Subtype string
	Source  string
	Device  string // "0:42"
}

// FindAt returns the file system that is mounted on top of dir, in the mount
// namespace of the calling thread, as Abort has it. Nothing is asked of it.
// Errors: host.ErrNotFound if there is none or it is not FUSE.
func FindAt(dir string) (Mounted, error) {
	text, err := os.ReadFile("/proc/thread-self/mountinfo") // the process's first thread may be elsewhere
	if err != nil {
		return Mounted{}, fmt.Errorf("find mount %s: %w", dir, err)
	}
	top, found := Mounted{}, false
	for line := range strings.Lines(string(text)) {
		if m, ok := parse(line); ok && m.Dir == dir {
			top, found = m, m.Subtype != ""
		}
	}
	if !found {
		return Mounted{}, fmt.Errorf("find FUSE file system at %s: %w", dir, host.ErrNotFound)
	}
	return top, nil
}

// parse understands a line of mountinfo; the subtype is "" for others than FUSE.
func parse(line string) (Mounted, bool) {
	fields := strings.Fields(line)
	dash := slices.Index(fields, "-")
	if dash < 5 || len(fields) < dash+3 {
		return Mounted{}, false
	}
	subtype, _ := strings.CutPrefix(fields[dash+1], "fuse.")
	if subtype == fields[dash+1] {
		subtype = ""
	}
	return Mounted{Dir: unescape(fields[4]), Subtype: subtype, Source: unescape(fields[dash+2]), Device: fields[2]}, true
}

// unescape replaces \040 and its like, which stand for white space and \.
func unescape(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		if n, err := strconv.ParseUint(s[1:min(4, len(s))], 8, 8); s[0] == '\\' && len(s) >= 4 && err == nil {
			b.WriteByte(byte(n))
			s = s[4:]
			continue
		}
		b.WriteByte(s[0])
		s = s[1:]
	}
	return b.String()
}
