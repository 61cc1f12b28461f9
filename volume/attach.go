package volume

import (
	"errors"
	"os"
	"path/filepath"

	"torpor/block"
	"torpor/block/hostdev"
)

// exportsDir is where the file systems go that block devices of a log lie in.
func (s *Server) exportsDir() string {
	return filepath.Join(s.config.RunDir, "volumes", string(s.config.Log)+".exports")
}

// attachment is a volume as a block device of this host.
type attachment struct{ export *hostdev.Export }

// attachHost makes a block device. Its directory is a new one: that of an export
// that a killed server left stays for as long as somebody has it mounted.
func attachHost(device block.Device, dir, volume string) (*attachment, error) {
	cleanExports(dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	mounted, err := os.MkdirTemp(dir, volume+".")
	if err != nil {
		return nil, err
	}
	e, err := hostdev.Attach(device, hostdev.Spec{Name: volume, MountDir: mounted})
	if err != nil {
		return nil, errors.Join(err, removeUnused(mounted))
	}
	return &attachment{e}, nil
}

func removeUnused(dir string) error {
	if err := os.Remove(dir); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// cleanExports takes away what is left of the exports of a server that was
// killed, but for what is in use: the next one tries again.
func cleanExports(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, mounted := range left {
		_ = hostdev.Clean(mounted)
	}
}

// resumeHost goes on with a block device that a server had suspended.
func resumeHost(device block.Device, s suspension) (*attachment, error) {
	var state hostdev.State
	files, err := s.take(&state)
	if err == nil && len(files) != 1 {
		err = errors.New("resume block device: it has no descriptor")
	}
	if err != nil {
		return nil, err
	}
	e, err := hostdev.Resume(device, state, files[0])
	if err != nil {
		return nil, errors.Join(err, files[0].Close())
	}
	return &attachment{e}, nil
}

// Path is the block device.
func (h *attachment) Path() string { return h.export.Path() }

// Resize tells the host that the volume has another size.
func (h *attachment) Resize() error { return h.export.Resize() }

// Suspend leaves the block device to the next server.
func (h *attachment) Suspend() (suspension, error) {
	state, file, err := h.export.Suspend()
	if err != nil {
		return suspension{}, err
	}
	return suspend(state, []*os.File{file})
}

// Close takes the block device away, unless it is in use.
func (h *attachment) Close() error { return h.export.Detach() }
