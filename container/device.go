package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"torpor/host"
)

// devices adds the service's devices. A directory stands for all devices below
// it. The few that every container has are the runtime's to add.
func (b *Bundle) devices(l *specs.Linux) error {
	for _, d := range b.Service.Devices {
		target := d.Target
		if target == "" {
			target = d.Source
		}
		found, err := findDevices(d.Source, target)
		if err != nil {
			return fmt.Errorf("pass device %s: %w", d.Source, err)
		}
		if len(found) == 0 {
			return fmt.Errorf("pass device %s: not a device: %w", d.Source, host.ErrInvalid)
		}
		access := d.Permissions
		if access == "" {
			access = "rwm"
		}
		for _, device := range found {
			l.Devices = append(l.Devices, device)
			l.Resources.Devices = append(l.Resources.Devices,
				specs.LinuxDeviceCgroup{Allow: true, Type: device.Type, Major: &device.Major, Minor: &device.Minor, Access: access})
		}
	}
	return nil
}

// hostDevices adds every device of the host, but for those that belong to a
// container's own /dev.
func (b *Bundle) hostDevices(l *specs.Linux) error {
	all, err := findDevices("/dev", "/dev")
	if err != nil {
		return fmt.Errorf("pass all devices: %w", err)
	}
	for _, d := range all {
		if !slices.ContainsFunc(l.Devices, func(o specs.LinuxDevice) bool { return o.Path == d.Path }) {
			l.Devices = append(l.Devices, d)
		}
	}
	return nil
}

// ownDev are the parts of /dev that a container has of its own.
var ownDev = []string{"/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/console", "/dev/ptmx", "/dev/hugepages", "/dev/fd"}

// findDevices lists the device at source, or those below it, as they are to be
// at target.
func findDevices(source, target string) ([]specs.LinuxDevice, error) {
	source, err := filepath.EvalSymlinks(source)
	if err != nil {
		return nil, err
	}
	var found []specs.LinuxDevice
	err = filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
		if slices.Contains(ownDev, path) && path != source {
			if d != nil && d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if errors.Is(err, fs.ErrNotExist) && path != source {
			return nil // unplugged meanwhile
		}
		if err != nil || d.Type()&fs.ModeDevice == 0 {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		found = append(found, deviceSpec(info, filepath.Clean(target+strings.TrimPrefix(path, source))))
		return nil
	})
	return found, err
}

// deviceSpec describes a device node; its number is split as in makedev(3).
func deviceSpec(info fs.FileInfo, target string) specs.LinuxDevice {
	st := info.Sys().(*syscall.Stat_t) // what os.Lstat returns on Linux
	kind := "b"
	if info.Mode()&os.ModeCharDevice != 0 {
		kind = "c"
	}
	mode, uid, gid := info.Mode().Perm(), st.Uid, st.Gid
	return specs.LinuxDevice{Path: target, Type: kind,
		Major: int64(st.Rdev>>8&0xfff | st.Rdev>>32&^0xfff), Minor: int64(st.Rdev&0xff | st.Rdev>>12&^0xff),
		FileMode: &mode, UID: &uid, GID: &gid}
}
