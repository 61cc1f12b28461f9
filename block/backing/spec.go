package backing

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"torpor/block"
	"torpor/kernel/disk"
)

// DirectorySpec says what device a directory is. It is in the directory's file
// device.json, which is written once; see docs/format/block-directory.md.
type DirectorySpec struct {
	SizeBytes  int64 `json:"size_bytes"`  // a multiple of 4096
	ChunkBytes int64 `json:"chunk_bytes"` // a multiple of 4096; the last chunk may be shorter
}

// specVersion is the version of device.json and of the names of chunks.
const specVersion = 1

// specFile is the name of the file with the spec, specDraft what it is called
// until it is durable.
const (
	specFile  = "device.json"
	specDraft = "device.json.new"
)

// maxChunks is how many names of eight digits there are.
const maxChunks = 100_000_000

type specDocument struct {
	Version int `json:"version"`
	DirectorySpec
}

// Validate says what is wrong with a spec.
func (s DirectorySpec) Validate() error {
	switch {
	case s.SizeBytes < 0 || s.SizeBytes%block.BlockBytes != 0:
		return fmt.Errorf("size of %d bytes: %w", s.SizeBytes, block.ErrAlignment)
	case s.ChunkBytes <= 0 || s.ChunkBytes%block.BlockBytes != 0:
		return fmt.Errorf("chunks of %d bytes: %w", s.ChunkBytes, block.ErrAlignment)
	case s.chunks() > maxChunks:
		return fmt.Errorf("%d chunks, more than %d: %w", s.chunks(), maxChunks, block.ErrRange)
	}
	return nil
}

// chunks is how many there are.
func (s DirectorySpec) chunks() int64 {
	n := s.SizeBytes / s.ChunkBytes
	if s.SizeBytes%s.ChunkBytes != 0 {
		n++
	}
	return n
}

// chunkBytes is how long a chunk is.
func (s DirectorySpec) chunkBytes(n int64) int64 {
	return min(s.ChunkBytes, s.SizeBytes-n*s.ChunkBytes)
}

func chunkName(n int64) string { return fmt.Sprintf("%08d", n) }

// parseChunkName is the inverse of chunkName for the chunks that there are.
func (s DirectorySpec) parseChunkName(name string) (int64, bool) {
	n, err := strconv.ParseInt(name, 10, 64)
	return n, err == nil && n >= 0 && n < s.chunks() && name == chunkName(n)
}

// CreateDirectory makes a device of a directory, durably: the one of this path,
// which has to be empty (but for lost+found), or a new one. Errors: EEXIST.
func CreateDirectory(path string, s DirectorySpec) error {
	if err := s.Validate(); err != nil {
		return fmt.Errorf("create device in %s: %w", path, err)
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != "lost+found" && e.Name() != specDraft {
			return fmt.Errorf("create device in %s: %s is there, and the directory has to be empty: %w", path, e.Name(), syscall.EEXIST)
		}
	}
	document, err := json.Marshal(specDocument{specVersion, s})
	if err != nil {
		return err
	}
	return errors.Join(writeSpec(path, append(document, '\n')), syncDirectory(filepath.Dir(path)))
}

func writeSpec(path string, document []byte) (err error) {
	draft := filepath.Join(path, specDraft)
	if err := os.Remove(draft); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := disk.Open(draft, disk.Create)
	if err != nil {
		return err
	}
	err = f.WriteAt([][]byte{document}, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(failed(err), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(draft, filepath.Join(path, specFile)); err != nil {
		return err
	}
	return syncDirectory(path)
}

// readSpec reads device.json of a directory.
func readSpec(path string) (DirectorySpec, error) {
	name := filepath.Join(path, specFile)
	content, err := os.ReadFile(name)
	if err != nil {
		return DirectorySpec{}, err
	}
	s, err := parseSpec(content)
	if err != nil {
		return DirectorySpec{}, fmt.Errorf("read %s: %w", name, err)
	}
	return s, nil
}

// parseSpec trusts nothing.
func parseSpec(content []byte) (DirectorySpec, error) {
	var document specDocument
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&document); err != nil {
		return DirectorySpec{}, err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return DirectorySpec{}, fmt.Errorf("more than one object: %w", syscall.EINVAL)
	}
	if document.Version != specVersion {
		return DirectorySpec{}, fmt.Errorf("version %d, and this program knows %d: %w", document.Version, specVersion, block.ErrUnsupported)
	}
	return document.DirectorySpec, document.Validate()
}
