package hostdev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"torpor/block"
	"torpor/host"
	"torpor/kernel/fusedev"
	"torpor/kernel/loop"
	"torpor/kernel/mount"
)

// Spec says what to make of a device.
type Spec struct {
	// Name is the file's in the mount, without a slash.
	Name string
	// MountDir is where the FUSE file system goes: an absolute path for this
	// export alone, on no export. It is made if missing, and removed in the end.
	MountDir string
	ReadOnly bool
}

// Export is a device that the host can use. Its methods may be called
// concurrently.
type Export struct {
	state  State
	server *server

	mu    sync.Mutex
	ended error // why the Export does nothing any more, or nil
}

// How long the kernel is given to let go of a file, and how long somebody to
// close a device.
const (
	unmountTime = 10 * time.Second
	closeTime   = 5 * time.Second
)

// subtype is shown in mountinfo; Clean goes by it.
const subtype = "torpor-volume"

var errEnded = errors.New("export has ended")

// Attach makes a block device of the host of dev. The device stays the
// caller's, who closes it after Detach. Its size is rounded down to whole
// blocks of 4096 bytes.
func Attach(dev block.Device, spec Spec) (*Export, error) {
	info := dev.Info()
	if info.BlockBytes > block.BlockBytes {
		return nil, fmt.Errorf("attach %s: blocks of %d bytes: %w", spec.Name, info.BlockBytes, host.ErrUnsupported)
	}
	if err := spec.check(); err != nil {
		return nil, fmt.Errorf("attach %s: %w", spec.Name, err)
	}
	spec.ReadOnly = spec.ReadOnly || info.ReadOnly
	e := &Export{state: State{Version: stateVersion, Name: spec.Name, MountDir: spec.MountDir, ReadOnly: spec.ReadOnly}}
	if err := e.attach(dev); err != nil {
		return nil, fmt.Errorf("attach %s: %w", spec.Name, err)
	}
	return e, nil
}

func (s Spec) check() error {
	if s.Name == "" || s.Name == "." || s.Name == ".." || strings.ContainsAny(s.Name, "/\n\x00") || len(s.Name) > 255 {
		return fmt.Errorf("name %q: %w", s.Name, host.ErrInvalid)
	}
	if !filepath.IsAbs(s.MountDir) || filepath.Clean(s.MountDir) != s.MountDir {
		return fmt.Errorf("mount directory %q: %w", s.MountDir, host.ErrInvalid)
	}
	return nil
}

func (e *Export) attach(dev block.Device) error {
	dir := e.state.MountDir
	if mounted, err := mount.Mounted(dir); err != nil || mounted {
		return errors.Join(err, fmt.Errorf("mount directory %s is in use: %w", dir, host.ErrExists))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	conn, err := fusedev.Mount(dir, fusedev.MountSpec{
		Source: e.state.Name, Subtype: subtype, MaxReadBytes: maxDataBytes, ReadOnly: e.state.ReadOnly,
	})
	if err != nil {
		return err
	}
	e.server = newServer(dev, conn, e.state)
	e.server.start()
	// This opens a file of our own mount, which the readers answer.
	device, err := loop.Attach(loop.Spec{
		BackingPath: e.state.backingPath(), BlockBytes: block.BlockBytes, ReadOnly: e.state.ReadOnly, DirectIO: true,
	})
	if err != nil {
		return errors.Join(err, e.unmount())
	}
	e.state.Loop = device.Path()
	return nil
}

// Path is the block device, "/dev/loop3".
func (e *Export) Path() string { return e.state.Loop }

// Done is closed when nobody answers requests any more: after Detach and
// Suspend, or because somebody else ended the FUSE connection.
func (e *Export) Done() <-chan struct{} { return e.server.done }

// Resize tells the host that the device has another size now. Growing is for
// mounted file systems too; before shrinking they must be shrunk.
func (e *Export) Resize() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended != nil {
		return fmt.Errorf("resize %s: %w", e.state.Name, e.ended)
	}
	e.server.setSize(e.server.dev.Info())
	// Kernels before 6.17 do not ask FUSE for the size; looking at the file does.
	if _, err := os.Stat(e.state.backingPath()); err != nil {
		return fmt.Errorf("resize %s: %w", e.state.Name, err)
	}
	d, err := e.state.loop()
	if err == nil {
		err = d.Refresh()
	}
	if err != nil {
		return fmt.Errorf("resize %s: %w", e.state.Name, err)
	}
	return nil
}

// Detach takes the block device away. While it is in use, it is refused with
// syscall.EBUSY and the users' names, and the export goes on.
func (e *Export) Detach() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended != nil {
		return fmt.Errorf("detach %s: %w", e.state.Name, e.ended)
	}
	d, err := e.state.loop()
	if err == nil {
		err = d.Detach(e.state.backingPath(), closeTime)
	}
	if err != nil {
		return fmt.Errorf("detach %s: %w", e.state.Name, err)
	}
	e.ended = errEnded
	if err := e.unmount(); err != nil {
		return fmt.Errorf("detach %s: %w", e.state.Name, err)
	}
	return nil
}

// unmount ends the file system and waits for the readers. The connection is
// aborted: other mount namespaces may have copies of the mount, and nobody asks
// any more. The kernel drops the loop device's file a little later than the
// device.
func (e *Export) unmount() error {
	dir := e.state.MountDir
	err := untilIdle(func() error { return fusedev.Abort(dir) })
	if err != nil {
		err = errors.Join(err, mount.Detach(dir))
	}
	<-e.server.done
	return errors.Join(err, e.server.conn.Close(), removeDir(dir))
}

// untilIdle retries while a file system is busy.
func untilIdle(unmount func() error) error {
	deadline := time.Now().Add(unmountTime)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := unmount()
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(pause)
	}
}

// removeDir leaves a directory that somebody else uses.
func removeDir(dir string) error {
	err := os.Remove(dir)
	if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EBUSY) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
