package hostdev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"torpor/host"
	"torpor/kernel/fusedev"
	"torpor/kernel/loop"
	"torpor/kernel/mount"
)

// probeTime is how long a file system may take to say that it is dead.
const probeTime = time.Second

// Clean removes what a process left behind that has ended: the block device and
// the mount of the export at mountDir. There may be nothing. It leaves alone
// what is not such an export (host.ErrExists), what some process still serves
// or could resume, and what is still mounted or in use (both syscall.EBUSY, with
// the names): then unmount it, or Abort, and try again.
func Clean(mountDir string) error {
	if err := clean(mountDir); err != nil {
		return fmt.Errorf("clean %s: %w", mountDir, err)
	}
	return nil
}

func clean(dir string) error {
	m, err := find(dir)
	if errors.Is(err, host.ErrNotFound) {
		return removeDir(dir)
	}
	if err != nil {
		return err
	}
	if err := checkDead(m); err != nil {
		return err
	}
	devices, err := loop.FindBelow(dir)
	if err != nil {
		return err
	}
	for _, d := range devices {
		err = errors.Join(err, cleanLoop(d, m))
	}
	if err != nil {
		return err
	}
	if err := untilIdle(func() error { return mount.Unmount(dir) }); err != nil {
		if err := mount.Detach(dir); err != nil {
			return err
		}
	}
	return removeDir(dir)
}

// Abort ends an export that nobody answers for, without waiting for anybody:
// whoever uses it gets errors. Then Clean.
func Abort(mountDir string) error {
	if _, err := find(mountDir); err != nil {
		return fmt.Errorf("abort export: %w", err)
	}
	if err := fusedev.Abort(mountDir); err != nil && !errors.Is(err, syscall.EBUSY) {
		return err
	}
	return nil
}

// find returns the file system of an export. Errors: host.ErrNotFound if
// nothing is mounted, host.ErrExists if something else is.
func find(dir string) (fusedev.Mounted, error) {
	m, err := fusedev.FindAt(dir)
	if err == nil && m.Subtype == subtype {
		return m, nil
	}
	if err != nil && !errors.Is(err, host.ErrNotFound) {
		return fusedev.Mounted{}, err
	}
	if mounted, _ := mount.Mounted(dir); mounted {
		return fusedev.Mounted{}, fmt.Errorf("%s is no export's: %w", dir, host.ErrExists)
	}
	return fusedev.Mounted{}, err
}

// checkDead returns an error if some process has the connection open.
func checkDead(m fusedev.Mounted) error {
	servers, sure := m.Servers()
	if len(servers) == 0 && !sure && !answersDead(m.Dir) {
		servers = []string{"a process unknown"}
	}
	if len(servers) > 0 {
		return fmt.Errorf("served by %s: %w", strings.Join(servers, ", "), syscall.EBUSY)
	}
	return nil
}

// answersDead asks the file system for an error. A suspended one does not
// answer: then the goroutine is left alone until it is resumed or aborted.
func answersDead(dir string) bool {
	answer := make(chan error, 1)
	go func() {
		_, err := os.Stat(dir)
		answer <- err
	}()
	select {
	case err := <-answer:
		return errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ECONNABORTED)
	case <-time.After(probeTime):
		return false
	}
}

// cleanLoop detaches a device whose backing file has a path below the mount. It
// may be one that the mount has covered since; only a dead one can not tell.
func cleanLoop(d loop.Device, m fusedev.Mounted) error {
	info, err := d.Info()
	if errors.Is(err, host.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	number, err := d.BackingDevice()
	if err == nil && number != m.Device || filepath.Dir(info.BackingPath) != m.Dir {
		return nil
	}
	return d.Detach(info.BackingPath, closeTime)
}
