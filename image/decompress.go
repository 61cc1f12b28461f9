package image

import (
	"bufio"
	"bytes"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"torpor/host"
)

// maxZstdWindow bounds the memory that a zstd stream may ask for. zstd itself
// stops at 128 MiB unless told otherwise.
const maxZstdWindow = 128 << 20

const streamBufferBytes = 128 << 10

var (
	gzipMagic = []byte{0x1f, 0x8b}
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
	xzMagic   = []byte{0xfd, '7', 'z', 'X', 'Z', 0}
	bzipMagic = []byte{'B', 'Z', 'h'}
)

// decompress returns the plain stream of r, which is gzip, zstd or plain: its
// first bytes say which, for media types are often wrong. Close the result.
func decompress(r io.Reader) (io.ReadCloser, error) {
	buffered := bufio.NewReaderSize(r, streamBufferBytes)
	head, err := buffered.Peek(6)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	switch magicOf(head) {
	case gzipStream:
		z, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, fmt.Errorf("decompress gzip: %w", err)
		}
		return z, nil
	case zstdStream:
		z, err := zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, fmt.Errorf("decompress zstd: %w", err)
		}
		return z.IOReadCloser(), nil
	case otherStream:
		return nil, fmt.Errorf("decompress: stream is xz or bzip2, only gzip and zstd are understood: %w", host.ErrUnsupported)
	}
	return io.NopCloser(buffered), nil
}

// stream says how something is compressed.
type stream int

const (
	plainStream stream = iota
	gzipStream
	zstdStream
	otherStream // compressed in a way that is not understood
)

// magicOf looks at the first bytes of a stream.
func magicOf(head []byte) stream {
	switch {
	case bytes.HasPrefix(head, gzipMagic):
		return gzipStream
	case bytes.HasPrefix(head, zstdMagic) || isSkippableFrame(head):
		return zstdStream
	case bytes.HasPrefix(head, xzMagic), bytes.HasPrefix(head, bzipMagic):
		return otherStream
	}
	return plainStream
}

// isSkippableFrame reports whether zstd metadata comes first (RFC 8878, 3.1.2),
// as in the chunked streams of podman.
func isSkippableFrame(head []byte) bool {
	return len(head) >= 4 && head[0]&0xf0 == 0x50 && head[1] == 0x2a && head[2] == 0x4d && head[3] == 0x18
}
