package disk

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Lock takes the lock of a regular file for as long as it is open. Everybody
// who writes to the file takes it. Errors: EWOULDBLOCK if it is taken, with who
// has it as far as the kernel tells.
func (f *File) Lock() error { return lock(f.fd, f.path) }

// Lock takes the lock of the directory for as long as it is open. Everybody who
// writes to files in it takes it. Errors: as of File.Lock.
func (d *Directory) Lock() error { return lock(d.fd, d.path) }

func lock(fd int, path string) error {
	err := untilDone(func() error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	switch err {
	case 0:
		return nil
	case unix.EWOULDBLOCK:
		return fmt.Errorf("lock %s: in use by %s: %w", path, holder(fd), err)
	}
	return fmt.Errorf("lock %s: %w", path, err)
}

// holder looks up who has locked the file. A kernel that calls its disk
// otherwise than stat (btrfs) does not tell.
func holder(fd int) string {
	const unknown = "another process"
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return unknown
	}
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return unknown
	}
	defer locks.Close()
	inode := fmt.Sprintf("%02x:%02x:%d", unix.Major(stat.Dev), unix.Minor(stat.Dev), stat.Ino)
	for lines := bufio.NewScanner(locks); lines.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 2634 fe:00:131 0 EOF
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || fields[1] != "FLOCK" || fields[5] != inode {
			continue
		}
		pid, err := strconv.Atoi(fields[4])
		if err != nil || pid <= 0 { // of another pid namespace
			return unknown
		}
		if pid == os.Getpid() {
			return "this process"
		}
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		return strings.TrimSpace(fmt.Sprintf("process %d %s", pid, name))
	}
	return unknown
}
