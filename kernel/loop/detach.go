package loop

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Detach frees the device if its backing file is still that of the given path,
// and returns when the kernel has let go of the file. If it is mounted or
// otherwise in use, it is left as it is: unix.EBUSY, with the users' names.
// Those that only have it open are waited for.
func (d Device) Detach(backingPath string, within time.Duration) error {
	if !d.attachedTo(backingPath) {
		return nil
	}
	if err := d.clear(); err != nil {
		return err
	}
	deadline := time.Now().Add(within)
	for pause := time.Millisecond; d.attachedTo(backingPath); pause = min(2*pause, 50*time.Millisecond) {
		if time.Now().After(deadline) {
			return d.busy(d.keep())
		}
		time.Sleep(pause)
	}
	return nil
}

// attachedTo is false when the device is free or has become another's.
func (d Device) attachedTo(backingPath string) bool {
	path, err := d.backing()
	return err == nil && (path == backingPath || path == backingPath+" (deleted)")
}

// clear tells the kernel to detach when the last user closes the device. That
// is this function, unless there are others: they can not mount it any more,
// since it is open exclusively.
func (d Device) clear() error {
	node, err := os.OpenFile(d.Path(), os.O_RDONLY|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return d.busy(nil)
	}
	if err != nil {
		return fmt.Errorf("detach %s: %w", d, err)
	}
	defer node.Close()
	err = unix.IoctlSetInt(int(node.Fd()), unix.LOOP_CLR_FD, 0)
	if err != nil && !errors.Is(err, unix.ENXIO) { // detached by somebody else
		return fmt.Errorf("detach %s: %w", d, err)
	}
	return nil
}

// keep takes back what clear did.
func (d Device) keep() error {
	node, err := os.OpenFile(d.Path(), os.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("keep %s: %w", d, err)
	}
	defer node.Close()
	status, err := unix.IoctlLoopGetStatus64(int(node.Fd()))
	if err == nil {
		status.Flags &^= unix.LO_FLAGS_AUTOCLEAR
		err = unix.IoctlLoopSetStatus64(int(node.Fd()), status)
	}
	if err != nil {
		return fmt.Errorf("keep %s: %w", d, err)
	}
	return nil
}

func (d Device) busy(also error) error {
	users := d.Users()
	if len(users) == 0 {
		users = []string{"somebody unknown"}
	}
	return errors.Join(fmt.Errorf("detach %s: in use by %s: %w", d, strings.Join(users, ", "), unix.EBUSY), also)
}
