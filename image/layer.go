package image

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"torpor/host"
	"torpor/kernel/tree"
)

// unpackSource streams one layer from its source into a directory of its own
// and, once blob and content have the right digests and all of it is on disk,
// into its place in the store.
func (s *Store) unpackSource(ctx context.Context, l layerSource, r *reporter) error {
	dir, err := os.MkdirTemp(s.tmpDir(), "layer-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) // gone after the rename
	if err := os.Mkdir(filepath.Join(dir, "fs"), 0o755); err != nil {
		return err
	}
	stream, err := l.open(ctx)
	if err != nil {
		return err
	}
	defer stream.Close()
	counted := &countingReader{Reader: stream, to: r, layer: l.label(), total: max(l.blob.Size, 0)}
	info, err := unpackVerified(ctx, filepath.Join(dir, "fs"), counted, l)
	if err != nil {
		return err
	}
	return s.addLayerDir(dir, l.id, info)
}

// unpackVerified unpacks a compressed stream and checks it on both sides of
// the decompression.
func unpackVerified(ctx context.Context, dir string, r io.Reader, l layerSource) (layerInfo, error) {
	if l.blob.Digest == (v1.Hash{}) {
		return unpackStream(ctx, dir, r, l.id)
	}
	blob, err := newBlobReader(r, l.blob)
	if err != nil {
		return layerInfo{}, err
	}
	info, err := unpackStream(ctx, dir, blob, l.id)
	var errno syscall.Errno
	if errors.As(err, &errno) && blob.err == nil || ctx.Err() != nil {
		return layerInfo{}, err // a full disk says nothing about the blob
	}
	// A wrong or broken blob explains whatever else went wrong.
	if blobErr := blob.finish(); blobErr != nil {
		return layerInfo{}, blobErr
	}
	return info, err
}

func unpackStream(ctx context.Context, dir string, r io.Reader, want LayerID) (layerInfo, error) {
	plain, err := decompress(r)
	if err != nil {
		return layerInfo{}, err
	}
	defer plain.Close()
	sum := sha256.New()
	tee := bufio.NewReaderSize(io.TeeReader(plain, sum), streamBufferBytes)
	info, err := unpackLayer(ctx, dir, tee)
	if err != nil {
		return layerInfo{}, err
	}
	if got := digestOf(sum.Sum(nil)); got != string(want) {
		return layerInfo{}, fmt.Errorf("unpacked content has digest %s, the image says %s: %w", got, want, host.ErrCorrupt)
	}
	return info, nil
}

// addLayerDir makes dir, a complete layer, the layer id.
func (s *Store) addLayerDir(dir string, id LayerID, info layerInfo) error {
	raw, err := json.Marshal(info)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, layerInfoName), append(raw, '\n'), 0o600); err != nil {
		return err
	}
	if err := tree.SyncFS(dir); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.replaceDir(dir, s.layerDir(id)); err != nil {
		return err
	}
	s.layers[id] = info
	return nil
}

func sha256Of(b []byte) string {
	sum := sha256.Sum256(b)
	return digestOf(sum[:])
}
