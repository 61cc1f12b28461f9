package loop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"torpor/host"
)

// Device is a loop device by its number.
type Device int

// Parse understands a path such as "/dev/loop3".
func Parse(path string) (Device, error) {
	number, found := strings.CutPrefix(path, "/dev/loop")
	n, err := strconv.ParseUint(number, 10, 20)
	if !found || err != nil {
		return 0, fmt.Errorf("parse loop device %q: %w", path, host.ErrInvalid)
	}
	return Device(n), nil
}

// Path is where the device is.
func (d Device) Path() string { return fmt.Sprintf("/dev/loop%d", int(d)) }

func (d Device) String() string { return fmt.Sprintf("loop%d", int(d)) }

// Info says what an attached device is.
type Info struct {
	BackingPath string // as it was seen when it was opened; " (deleted)" may follow
	DirectIO    bool   // else through the page cache of the backing file
	ReadOnly    bool
	Autoclear   bool // detaches itself when the last user closes it
	BlockBytes  int
	SizeBytes   int64
}

// Info looks the device up. Errors: host.ErrNotFound if it is not attached.
func (d Device) Info() (Info, error) {
	var info Info
	var err error
	if info.BackingPath, err = d.backing(); err != nil {
		return Info{}, err
	}
	numbers := map[string]int64{"loop/dio": 0, "loop/autoclear": 0, "ro": 0, "queue/logical_block_size": 0, "size": 0}
	for name := range numbers {
		text, err := d.attribute(name)
		if err == nil {
			numbers[name], err = strconv.ParseInt(text, 10, 64)
		}
		if err != nil {
			return Info{}, fmt.Errorf("look up %s of %s: %w", name, d, err)
		}
	}
	info.DirectIO = numbers["loop/dio"] == 1
	info.Autoclear = numbers["loop/autoclear"] == 1
	info.ReadOnly = numbers["ro"] == 1
	info.BlockBytes = int(numbers["queue/logical_block_size"])
	info.SizeBytes = numbers["size"] * 512
	return info, nil
}

// backing returns the path of the backing file. The directory "loop" is there
// while the device is attached.
func (d Device) backing() (string, error) {
	path, err := d.attribute("loop/backing_file")
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) || err == nil && path == "" {
		return "", fmt.Errorf("look up backing file of %s: not attached: %w", d, host.ErrNotFound)
	}
	if err != nil {
		return "", fmt.Errorf("look up backing file of %s: %w", d, err)
	}
	return path, nil
}

func (d Device) attribute(name string) (string, error) {
	text, err := os.ReadFile(d.sys(name))
	return strings.TrimSuffix(string(text), "\n"), err
}

func (d Device) sys(name string) string { return filepath.Join("/sys/block", d.String(), name) }

// FindBelow returns the devices whose backing files lie below a directory, by
// their paths only: nothing is asked of the file system, which may be dead.
func FindBelow(dir string) ([]Device, error) {
	names, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, fmt.Errorf("find loop devices: %w", err)
	}
	var found []Device
	for _, name := range names {
		n, err := strconv.Atoi(strings.TrimPrefix(strings.Split(name, "/")[3], "loop"))
		if err != nil {
			continue
		}
		path, err := Device(n).backing()
		if err == nil && strings.HasPrefix(path, filepath.Clean(dir)+"/") {
			found = append(found, Device(n))
		}
	}
	return found, nil
}

// Refresh takes over the size that the backing file has now.
func (d Device) Refresh() error {
	f, err := os.OpenFile(d.Path(), os.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("refresh size of %s: %w", d, err)
	}
	defer f.Close()
	if err := unix.IoctlSetInt(int(f.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		return fmt.Errorf("refresh size of %s: %w", d, err)
	}
	return nil
}

// BackingDevice is the number of the file system that holds the backing file,
// as in mountinfo ("0:42"). The file system is asked: unix.ENOTCONN of FUSE
// whose server is gone.
func (d Device) BackingDevice() (string, error) {
	f, err := os.OpenFile(d.Path(), os.O_RDONLY, 0)
	if err != nil {
		return "", fmt.Errorf("look up backing device of %s: %w", d, err)
	}
	defer f.Close()
	status, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if err != nil {
		return "", fmt.Errorf("look up backing device of %s: %w", d, err)
	}
	return fmt.Sprintf("%d:%d", unix.Major(status.Device), unix.Minor(status.Device)), nil
}
