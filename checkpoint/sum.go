package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/zeebo/xxh3"

	"torpor/checkpoint/files"
	"torpor/host"
)

// SumSpec is the checksum, xxh3, of a run of data in a file of a ready
// checkpoint. Restores do not read it: they would touch all that they spare.
type SumSpec struct {
	File     string `json:"file"`
	Offset   int64  `json:"offset"`
	LenBytes int64  `json:"len_bytes"`
	Hash     uint64 `json:"hash"`
}

// sumBytes is the longest run with one checksum.
const sumBytes = 4 << 20

// sumFiles sums the data of all regular files in a directory but meta.
func sumFiles(dir string) ([]SumSpec, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("sum checkpoint: %w", err)
	}
	var sums []SumSpec
	for _, e := range entries {
		if !e.Type().IsRegular() || e.Name() == metaName {
			continue
		}
		if sums, err = sumFile(sums, dir, e.Name()); err != nil {
			return nil, fmt.Errorf("sum checkpoint: %w", err)
		}
	}
	return sums, nil
}

func sumFile(sums []SumSpec, dir, name string) ([]SumSpec, error) {
	const seekData, seekHole = 3, 4
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for at := int64(0); ; {
		data, err := f.Seek(at, seekData)
		if errors.Is(err, syscall.ENXIO) {
			return sums, nil
		}
		if err != nil {
			return nil, err
		}
		hole, err := f.Seek(data, seekHole)
		if err != nil {
			return nil, err
		}
		for at = data; at < hole; {
			s := SumSpec{File: name, Offset: at, LenBytes: min(hole-at, sumBytes)}
			if s.Hash, err = s.sum(f); err != nil {
				return nil, err
			}
			sums = append(sums, s)
			at += s.LenBytes
		}
	}
}

// sum hashes the run as it is now.
func (s *SumSpec) sum(f *os.File) (uint64, error) {
	h := xxh3.New()
	n, err := io.Copy(h, io.NewSectionReader(f, s.Offset, s.LenBytes))
	if err == nil && n != s.LenBytes {
		err = io.ErrUnexpectedEOF
	}
	return h.Sum64(), err
}

// CheckReady reads all of a ready checkpoint and compares it with what was
// written. Errors are those of ReadReady.
func CheckReady(dir string, key *Key) error {
	spec, err := ReadReady(dir, key)
	if err != nil {
		return err
	}
	for _, s := range spec.Ready.Sums {
		if err := s.check(dir); err != nil {
			return err
		}
	}
	for _, r := range spec.Ready.Beside {
		if !r.Layer {
			continue
		}
		now, err := files.List(filepath.Join(dir, r.Copy), files.Options{Skip: r.Disposable, Copied: true})
		if err != nil {
			return fmt.Errorf("check ready checkpoint: %w: %w", err, host.ErrCorrupt)
		}
		if where := r.Listing.Difference(now); where != "" {
			return fmt.Errorf("check ready checkpoint: the copy of %s differs in %s: %w", r.Target, where, host.ErrCorrupt)
		}
	}
	return nil
}

func (s *SumSpec) check(dir string) error {
	if !filepath.IsLocal(s.File) {
		return fmt.Errorf("check ready checkpoint: file %q: %w", s.File, host.ErrCorrupt)
	}
	f, err := os.Open(filepath.Join(dir, s.File))
	if err != nil {
		return fmt.Errorf("check ready checkpoint: %w: %w", err, host.ErrCorrupt)
	}
	defer f.Close()
	if hash, err := s.sum(f); err != nil || hash != s.Hash {
		return fmt.Errorf("check ready checkpoint: %s differs in the %d bytes at %d: %w", s.File, s.LenBytes, s.Offset, errors.Join(err, host.ErrCorrupt))
	}
	return nil
}
