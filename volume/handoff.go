package volume

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"torpor/host"
)

// handoff is what a server leaves to the binary that it executes in its own
// place: descriptors, which stay open, and what they are.
type handoff struct {
	Version  int                   `json:"version"`
	Lock     int                   `json:"lock"`
	Attached map[string]suspension `json:"attached,omitempty"` // by volume
	Served   map[string]suspension `json:"served,omitempty"`   // by address
}

const handoffVersion = 1

// takeHandoff reads what was left at a descriptor.
func takeHandoff(fd int) (handoff, error) {
	var h handoff
	if fd == 0 {
		return h, nil
	}
	f := os.NewFile(uintptr(fd), "handoff")
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
	if err == nil {
		err = json.Unmarshal(b, &h)
	}
	if err == nil && h.Version != handoffVersion {
		err = fmt.Errorf("version %d, this torpor uses %d: %w", h.Version, handoffVersion, host.ErrUnsupported)
	}
	if err != nil {
		return handoff{}, fmt.Errorf("take over exports: %w", err)
	}
	h.keepFromChildren()
	return h, nil
}

// keepFromChildren makes descriptors close on the next execution again.
func (h *handoff) keepFromChildren() {
	syscall.CloseOnExec(h.Lock)
	for _, s := range h.Attached {
		for _, fd := range s.FDs {
			syscall.CloseOnExec(fd)
		}
	}
	for _, s := range h.Served {
		for _, fd := range s.FDs {
			syscall.CloseOnExec(fd)
		}
	}
}

// drop closes the descriptors of exports that nobody took: their users see errors
// instead of waiting for ever.
func (h *handoff) drop() error {
	var errs []error
	for _, all := range []map[string]suspension{h.Attached, h.Served} {
		for name, s := range all {
			var state json.RawMessage
			files, err := s.take(&state)
			for _, f := range files {
				err = errors.Join(err, f.Close())
			}
			errs = append(errs, err)
			delete(all, name)
		}
	}
	return errors.Join(errs...)
}

// BinarySum is the SHA-256 of an executable.
func BinarySum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read executable: %w", err)
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return "", fmt.Errorf("read executable: %w", err)
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// Upgrade executes another binary in the server's place. Requests for blocks
// wait until that has opened the log. It returns only after an error; then the
// server goes on.
func (s *Server) Upgrade(executable string) error {
	if !filepath.IsAbs(executable) {
		return fmt.Errorf("upgrade: %q is not an absolute path: %w", executable, host.ErrInvalid)
	}
	if info, err := os.Stat(executable); err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return fmt.Errorf("upgrade: %s is no executable: %w", executable, errors.Join(err, host.ErrInvalid))
	}
	s.endJob()
	s.mu.Lock()
	defer s.mu.Unlock()
	h, err := s.suspendLocked()
	if err != nil {
		for name := range s.volumes {
			s.exportLocked(name, h)
		}
		return fmt.Errorf("upgrade: %w", err)
	}
	if err = s.closeLogLocked(); err == nil {
		err = s.execute(executable, h)
	}
	// Not executed: take back what was left to nobody.
	s.openLocked(h)
	return errors.Join(fmt.Errorf("upgrade: %w", err), s.failure)
}

// suspendLocked makes the exports wait. After an error the handoff has those that
// do.
func (s *Server) suspendLocked() (handoff, error) {
	h := handoff{Version: handoffVersion, Attached: map[string]suspension{}, Served: map[string]suspension{}}
	for name, v := range s.volumes {
		if v.attached != nil {
			suspended, err := v.attached.Suspend()
			if err != nil {
				return h, err
			}
			h.Attached[name], v.attached = suspended, nil
		}
		for len(v.servers) > 0 {
			suspended, err := v.servers[0].Suspend()
			if err != nil {
				return h, err
			}
			h.Served[v.specs[0].Listen] = suspended
			v.servers, v.specs = v.servers[1:], v.specs[1:]
		}
	}
	return h, nil
}

// execute replaces the process.
func (s *Server) execute(executable string, h handoff) error {
	lock, err := syscall.Dup(int(s.lock.Fd()))
	if err != nil {
		return err
	}
	defer syscall.Close(lock)
	h.Lock = lock
	var copies []int
	defer func() {
		for _, fd := range copies {
			syscall.Close(fd)
		}
	}()
	// Copies of descriptors stay open when another binary is executed.
	keep := func(all suspension) (suspension, error) {
		kept := suspension{State: all.State}
		for _, f := range all.files {
			copied, err := syscall.Dup(int(f.Fd()))
			if err != nil {
				return kept, err
			}
			copies = append(copies, copied)
			kept.FDs = append(kept.FDs, copied)
		}
		return kept, nil
	}
	left := handoff{Version: h.Version, Lock: h.Lock, Attached: map[string]suspension{}, Served: map[string]suspension{}}
	for name, suspended := range h.Attached {
		if left.Attached[name], err = keep(suspended); err != nil {
			return err
		}
	}
	for address, suspended := range h.Served {
		if left.Served[address], err = keep(suspended); err != nil {
			return err
		}
	}
	note, err := s.note(left)
	if err != nil {
		return err
	}
	defer syscall.Close(note)
	args := []string{executable, "volume", "serve", "--state", s.config.StateDir, "--run", s.config.RunDir, "--handoff", strconv.Itoa(note), string(s.config.Log)}
	return syscall.Exec(executable, args, os.Environ())
}

// note writes the handoff into a file without a name.
func (s *Server) note(h handoff) (int, error) {
	b, err := json.Marshal(h)
	if err != nil {
		return -1, err
	}
	f, err := os.CreateTemp(LogDir(s.config.StateDir, s.config.Log), ".handoff-")
	if err != nil {
		return -1, err
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return -1, err
	}
	if _, err := f.Write(b); err != nil {
		return -1, err
	}
	return syscall.Dup(int(f.Fd()))
}
