package checkpoint

import (
	"crypto/hmac"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"

	"torpor/host"
	"torpor/kernel/proc"
)

// The file meta, little endian (docs/format/checkpoint.md):
//
//	 0  magic "torporCK"
//	 8  version, uint32
//	12  length of the body in bytes, uint32
//	16  CRC-32C of the body, uint32
//	20  zero, uint32
//	24  seal: HMAC-SHA-256 of what is before it and of the body; zero if not sealed
//	56  body: Spec as JSON
//
// In version 1, which is still read, the body begins at 24.
const (
	metaMagic       = "torporCK"
	metaVersion     = 2
	metaSealAt      = 24
	metaHeaderBytes = metaSealAt + sealBytes
	metaUnsealed    = 1 // version
	metaMost        = 256 << 20
)

// Names of the files of a checkpoint directory.
const (
	metaName  = "meta"
	PagesName = "pages.img"
	baseName  = "base.img" // a link to the pages image of the ready checkpoint which the tree came from
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode returns the content of the file meta, sealed if there is a key.
func (s *Spec) Encode(key *Key) ([]byte, error) {
	body, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode checkpoint: %w", err)
	}
	b := make([]byte, metaHeaderBytes, metaHeaderBytes+len(body))
	copy(b, metaMagic)
	binary.LittleEndian.PutUint32(b[8:], metaVersion)
	binary.LittleEndian.PutUint32(b[12:], uint32(len(body)))
	binary.LittleEndian.PutUint32(b[16:], crc32.Checksum(body, castagnoli))
	if key != nil {
		copy(b[metaSealAt:], key.seal(b[:metaSealAt], body))
	}
	return append(b, body...), nil
}

// LoadSpec decodes the content of a file meta. Anything but a whole, unchanged
// file of this version is an error that matches host.ErrCorrupt or
// host.ErrUnsupported; with a key, so is one that was not sealed by it.
func LoadSpec(b []byte, key *Key) (*Spec, error) {
	body, seal, err := splitMeta(b)
	if err != nil {
		return nil, err
	}
	if n := binary.LittleEndian.Uint32(b[12:]); n > metaMost || int(n) != len(body) {
		return nil, fmt.Errorf("load checkpoint: %d bytes, header says %d: %w", len(body), n, host.ErrCorrupt)
	}
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(b[16:]) || binary.LittleEndian.Uint32(b[20:]) != 0 {
		return nil, fmt.Errorf("load checkpoint: checksum differs: %w", host.ErrCorrupt)
	}
	want := make([]byte, len(seal))
	if key != nil {
		want = key.seal(b[:metaSealAt], body)
	}
	if !hmac.Equal(want, seal) {
		return nil, fmt.Errorf("load checkpoint: it is not sealed by this machine's key: %w", host.ErrCorrupt)
	}
	s := new(Spec)
	if err := json.Unmarshal(body, s); err != nil {
		return nil, fmt.Errorf("load checkpoint: %w: %w", err, host.ErrCorrupt)
	}
	if err := s.validate(); err != nil {
		return nil, err
	}
	return s, nil
}

// splitMeta returns the parts behind the fields that both versions have.
func splitMeta(b []byte) (body, seal []byte, err error) {
	if len(b) < metaSealAt || string(b[:8]) != metaMagic {
		return nil, nil, fmt.Errorf("load checkpoint: no checkpoint header: %w", host.ErrCorrupt)
	}
	switch v := binary.LittleEndian.Uint32(b[8:]); {
	case v == metaUnsealed:
		return b[metaSealAt:], nil, nil
	case v != metaVersion:
		return nil, nil, fmt.Errorf("load checkpoint: version %d, this torpor reads %d: %w", v, metaVersion, host.ErrUnsupported)
	case len(b) < metaHeaderBytes:
		return nil, nil, fmt.Errorf("load checkpoint: cut in its header: %w", host.ErrCorrupt)
	}
	return b[metaHeaderBytes:], b[metaSealAt:metaHeaderBytes], nil
}

// validate checks what compiling relies on.
func (s *Spec) validate() error {
	if len(s.Processes) == 0 || s.Pages < 0 || int(s.Pages) >= s.Parked {
		return fmt.Errorf("load checkpoint: no processes or no image: %w", host.ErrCorrupt)
	}
	if s.Suspended < 0 || s.Suspended > s.Connections || s.Connections >= s.Parked || int(s.Pages) >= s.Parked-s.Connections {
		return fmt.Errorf("load checkpoint: %d connections, %d suspended: %w", s.Connections, s.Suspended, host.ErrCorrupt)
	}
	if s.Time != nil && (*s.Time < 0 || int(*s.Time) >= s.Parked) {
		return fmt.Errorf("load checkpoint: time namespace: %w", host.ErrCorrupt)
	}
	seen := map[int]bool{}
	for i := range s.Processes {
		p := &s.Processes[i]
		if len(p.Threads) == 0 || p.Threads[0].TID != p.PID || p.PID <= 0 || seen[p.PID] {
			return fmt.Errorf("load checkpoint: process %d: %w", p.PID, host.ErrCorrupt)
		}
		if p.Parent != 0 && !seen[p.Parent] {
			return fmt.Errorf("load checkpoint: process %d before its parent %d: %w", p.PID, p.Parent, host.ErrCorrupt)
		}
		seen[p.PID] = true
		if err := p.validate(s.Parked); err != nil {
			return err
		}
	}
	for _, f := range s.Verify {
		if f.Process < 0 || f.Process >= len(s.Processes) || len(f.Hashes)%8 != 0 {
			return fmt.Errorf("load checkpoint: fingerprint of process %d: %w", f.Process, host.ErrCorrupt)
		}
	}
	return s.Ready.validate(s)
}

func (p *ProcessSpec) validate(parked int) error {
	ok := func(s Slot) bool { return s >= 0 && int(s) < parked }
	if !ok(p.Exe) || !ok(p.Cwd) || p.Root != NoSlot && !ok(p.Root) {
		return fmt.Errorf("load checkpoint: files of process %d: %w", p.PID, host.ErrCorrupt)
	}
	for i := range p.VMAs {
		v := &p.VMAs[i]
		if (v.Kind == VMAFile || v.Kind == VMAShared || v.Kind == VMABase) && !ok(v.File) || !v.valid() {
			return fmt.Errorf("load checkpoint: mapping %x-%x: %w", uint64(v.Start), uint64(v.End), host.ErrCorrupt)
		}
	}
	for _, d := range p.Descriptors {
		if !validFD(d.FD) || !ok(d.Slot) || slices.ContainsFunc(slices.Concat(d.Events, d.Signals), func(e EventSpec) bool {
			return !validFD(e.FD) || e.Slot != nil && !ok(*e.Slot)
		}) {
			return fmt.Errorf("load checkpoint: descriptor %d: %w", d.FD, host.ErrCorrupt)
		}
	}
	for _, a := range p.SigActions {
		if a.Signal < 1 || a.Signal > 64 {
			return fmt.Errorf("load checkpoint: signal %d: %w", a.Signal, host.ErrCorrupt)
		}
	}
	for i := range p.Threads {
		if !p.Threads[i].valid() {
			return fmt.Errorf("load checkpoint: thread %d: %w", p.Threads[i].TID, host.ErrCorrupt)
		}
	}
	return nil
}

func validFD(fd int) bool { return fd >= 0 && fd <= 1<<20 }

// valid checks the addresses of a mapping.
func (v *VMASpec) valid() bool {
	if v.Start >= v.End || v.End > taskSize || v.Start%proc.PageBytes != 0 || v.End%proc.PageBytes != 0 {
		return false
	}
	for _, runs := range [][]PageRun{v.Used, v.Guards} {
		for _, r := range runs {
			if r.Start < v.Start || r.Start >= r.End || r.End > v.End {
				return false
			}
		}
	}
	return true
}

func (t *ThreadSpec) valid() bool {
	return t.TID > 0 && len(t.XState) > 0 &&
		!slices.ContainsFunc(t.Creds.Filters, func(f []byte) bool { return len(f)%8 != 0 })
}

// ReadSpec reads DIR/meta. A directory without one is host.ErrNotFound: no
// checkpoint is committed there.
func ReadSpec(dir string) (*Spec, error) {
	b, err := os.ReadFile(filepath.Join(dir, metaName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read checkpoint in %s: %w", dir, host.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read checkpoint: %w", err)
	}
	return LoadSpec(b, nil)
}

// commit makes the checkpoint valid: from the rename on it is the truth.
func (s *Spec) commit(dir string) error {
	b, err := s.Encode(nil)
	if err != nil {
		return err
	}
	temporary := filepath.Join(dir, metaName+".new")
	if err := os.WriteFile(temporary, b, 0o600); err != nil {
		return fmt.Errorf("commit checkpoint: %w", err)
	}
	if err := os.Rename(temporary, filepath.Join(dir, metaName)); err != nil {
		return fmt.Errorf("commit checkpoint: %w", err)
	}
	return nil
}

// writeDurably writes a new file and its name to the disk.
func writeDurably(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}

// Discard makes a checkpoint invalid: its processes run again, or never will.
// The pages image stays, running processes may map it.
func Discard(dir string) error {
	err := os.Remove(filepath.Join(dir, metaName))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("discard checkpoint: %w", err)
	}
	return nil
}
