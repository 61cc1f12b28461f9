package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"torpor/host"
)

// How long and how often a registry is asked.
const (
	layerTries      = 3
	responseTimeout = 60 * time.Second // for the first byte of an answer
	stallTimeout    = 60 * time.Second // for the next byte of a blob
)

// networkError marks an error that may be gone at the next try.
type networkError struct{ err error }

func (e *networkError) Error() string { return e.err.Error() }
func (e *networkError) Unwrap() error { return e.err }

// pause waits before try+1: 0.3 s, then 1.2 s.
func pause(ctx context.Context, try int) error {
	select {
	case <-time.After(time.Duration(try*try) * 300 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// registry is one repository of a registry, for one pull.
type registry struct {
	repository name.Repository
	puller     *remote.Puller
	idle       func() // closes idle connections
}

// newRegistry prepares to ask the registry of ref.
func newRegistry(ref name.Reference, o PullOptions) (*registry, error) {
	base := o.Transport
	idle := func() {}
	if base == nil {
		t := remote.DefaultTransport.(*http.Transport).Clone()
		t.ResponseHeaderTimeout = responseTimeout
		base, idle = t, t.CloseIdleConnections
	}
	keychain := o.Keychain
	if keychain == nil {
		keychain = authn.DefaultKeychain
	}
	puller, err := remote.NewPuller(
		remote.WithTransport(plainGuard{base, o.PlainHTTP}),
		remote.WithAuthFromKeychain(keychain),
		remote.WithUserAgent("torpor"),
		remote.WithJobs(parallelLayers+1),
	)
	if err != nil {
		return nil, err
	}
	return &registry{repository: ref.Context(), puller: puller, idle: idle}, nil
}

// blob opens a blob of the repository. Reading it fails if nothing comes for
// stallTimeout.
func (r *registry) blob(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	layer, err := r.puller.Layer(ctx, r.repository.Digest(d.Digest.String()))
	if err != nil {
		cancel(nil)
		return nil, networkOrNot(err)
	}
	body, err := layer.Compressed()
	if err != nil {
		cancel(nil)
		return nil, networkOrNot(err)
	}
	return &stallReader{body: body, ctx: ctx, cancel: cancel}, nil
}

// stallReader is the body of an answer.
type stallReader struct {
	body   io.ReadCloser
	ctx    context.Context // of the request; ends a read that takes too long
	cancel context.CancelCauseFunc
}

var errStalled = errors.New("registry sent nothing for a minute")

func (s *stallReader) Read(p []byte) (int, error) {
	timer := time.AfterFunc(stallTimeout, func() { s.cancel(errStalled) })
	n, err := s.body.Read(p)
	timer.Stop()
	if err == nil || err == io.EOF {
		return n, err
	}
	if cause := context.Cause(s.ctx); cause != nil {
		err = cause
	}
	return n, &networkError{err}
}

func (s *stallReader) Close() error {
	err := s.body.Close()
	s.cancel(nil)
	return err
}

// networkOrNot marks err if trying again may help.
func networkOrNot(err error) error {
	var answer *transport.Error
	if errors.As(err, &answer) && !answer.Temporary() && answer.StatusCode < 500 {
		return err
	}
	return &networkError{err}
}

// explain turns what a registry said into an error that says what to do.
func explain(err error, ref name.Reference) error {
	var answer *transport.Error
	if !errors.As(err, &answer) {
		return err
	}
	switch answer.StatusCode {
	case http.StatusNotFound:
		return fmt.Errorf("%s is not in the registry: %w: %w", shortRef(refKey(ref)), host.ErrNotFound, err)
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("registry %s does not let us have it: check the name, or log in there with docker login: %w", ref.Context().RegistryStr(), err)
	}
	return err
}

// plainGuard lets requests without TLS out to this machine and to the
// registries that were named, and to nobody else.
type plainGuard struct {
	http.RoundTripper
	allowed []string
}

func (g plainGuard) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !plainAllowed(r.URL.Host, g.allowed) {
		return nil, fmt.Errorf("ask %s: plain http is not allowed there; allow it by name: %w", r.URL.Host, host.ErrRefused)
	}
	return g.RoundTripper.RoundTrip(r)
}

// plainAllowed reports whether a host, with or without a port, may be asked
// without TLS.
func plainAllowed(hostPort string, allowed []string) bool {
	for _, a := range allowed {
		if a == hostPort {
			return true
		}
	}
	name, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		name = strings.Trim(hostPort, "[]")
	}
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	ip := net.ParseIP(name)
	return ip != nil && ip.IsLoopback()
}
