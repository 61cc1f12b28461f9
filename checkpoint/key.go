package checkpoint

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"torpor/host"
)

// Key seals the ready checkpoints of one machine: what another machine, or
// anybody without the key, has written is not restored.
type Key [32]byte

const sealBytes = sha256.Size

// seal is what proves that the holder of the key wrote the parts.
func (k *Key) seal(parts ...[]byte) []byte {
	mac := hmac.New(sha256.New, k[:])
	for _, p := range parts {
		mac.Write(p)
	}
	return mac.Sum(nil)
}

// OpenKey reads the key at path, which is made if there is none. Errors:
// host.ErrCorrupt.
func OpenKey(path string) (*Key, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return makeKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	k := new(Key)
	if copy(k[:], b) != len(k) || len(b) != len(k) {
		return nil, fmt.Errorf("read key %s: %d bytes, want %d (remove it to have a new one): %w", path, len(b), len(k), host.ErrCorrupt)
	}
	return k, nil
}

// makeKey writes a new key. Of several that are made at once the first to be
// named counts.
func makeKey(path string) (*Key, error) {
	k := new(Key)
	rand.Read(k[:]) // never fails
	f, err := os.CreateTemp(filepath.Dir(path), ".key-")
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(k[:])
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	if err := os.Link(f.Name(), path); errors.Is(err, os.ErrExist) {
		return OpenKey(path)
	} else if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return k, syncDir(filepath.Dir(path))
}
