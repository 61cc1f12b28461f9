package image

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"torpor/host"
)

// blobReader reads a blob that has to have a certain digest and size. What it
// gives out is not trusted before finish has returned nil.
type blobReader struct {
	r    io.Reader
	want v1.Hash
	size int64 // -1: not known
	sum  hash.Hash
	n    int64
	err  error // of r, except io.EOF
}

// newBlobReader checks for the digest and size that d says.
func newBlobReader(r io.Reader, d v1.Descriptor) (*blobReader, error) {
	sum, err := v1.Hasher(d.Digest.Algorithm)
	if err != nil {
		return nil, fmt.Errorf("check digest %s: %w: %w", d.Digest, host.ErrUnsupported, err)
	}
	return &blobReader{r: r, want: d.Digest, size: d.Size, sum: sum}, nil
}

func (b *blobReader) Read(p []byte) (int, error) {
	if b.size >= 0 && b.n > b.size {
		return 0, b.tooLong()
	}
	n, err := b.r.Read(p)
	b.n += int64(n)
	b.sum.Write(p[:n])
	if err != nil && err != io.EOF {
		b.err = err
	}
	if b.size >= 0 && b.n > b.size {
		return 0, b.tooLong()
	}
	return n, err
}

func (b *blobReader) tooLong() error {
	return fmt.Errorf("blob %s is longer than the %d bytes announced: %w", b.want, b.size, host.ErrCorrupt)
}

// finish reads what is left and compares size and digest. A wrong blob is
// host.ErrCorrupt; other errors are those of reading.
func (b *blobReader) finish() error {
	_, err := io.Copy(io.Discard, b)
	switch {
	case errors.Is(err, host.ErrCorrupt):
		return err
	case b.err != nil:
		// A reader below may have noticed a wrong digest by itself; then it
		// gave all bytes. An interrupted one did not.
		if b.size >= 0 && b.n == b.size && b.digest() != b.want.Hex {
			break
		}
		if b.size >= 0 && b.n < b.size && !interrupted(b.err) {
			return fmt.Errorf("blob %s ends after %d of %d bytes: %w: %w", b.want, b.n, b.size, host.ErrCorrupt, b.err)
		}
		return b.err
	case b.size >= 0 && b.n != b.size:
		return fmt.Errorf("blob %s ends after %d of %d bytes: %w: %w", b.want, b.n, b.size, host.ErrCorrupt, io.ErrUnexpectedEOF)
	}
	if got := b.digest(); got != b.want.Hex {
		return fmt.Errorf("blob %s has digest %s:%s: %w", b.want, b.want.Algorithm, got, host.ErrCorrupt)
	}
	return nil
}

// interrupted reports whether err is of the way that a blob came, rather than
// a complaint of the reader below about a blob that ended too early.
func interrupted(err error) bool {
	var network net.Error
	var errno syscall.Errno
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.Canceled) || errors.Is(err, errStalled) ||
		errors.As(err, &network) || errors.As(err, &errno)
}

func (b *blobReader) digest() string { return hex.EncodeToString(b.sum.Sum(nil)) }

// readBlob reads a whole small blob and checks it.
func readBlob(r io.Reader, d v1.Descriptor) ([]byte, error) {
	if d.Size < 0 || d.Size > maxConfigBytes {
		return nil, fmt.Errorf("read blob %s: %d bytes, at most %d are read: %w", d.Digest, d.Size, maxConfigBytes, host.ErrInvalid)
	}
	b, err := newBlobReader(r, d)
	if err != nil {
		return nil, err
	}
	raw := make([]byte, d.Size)
	if _, err := io.ReadFull(b, raw); err != nil && b.err == nil && !errors.Is(err, io.ErrUnexpectedEOF) && err != io.EOF {
		return nil, err
	}
	if err := b.finish(); err != nil {
		return nil, err
	}
	return raw, nil
}
