package keeper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"

	"torpor/host"
)

// failure is an error on the wire.
type failure struct {
	Message string   `json:"error"`
	Kind    string   `json:"kind,omitempty"`
	Reasons []string `json:"reasons,omitempty"`
}

// kinds are the errors that keep their identity over the wire.
var kinds = map[string]struct {
	err  error
	code int
}{
	"not_found":   {host.ErrNotFound, http.StatusNotFound},
	"invalid":     {host.ErrInvalid, http.StatusBadRequest},
	"corrupt":     {host.ErrCorrupt, http.StatusInternalServerError},
	"unsupported": {host.ErrUnsupported, http.StatusNotImplemented},
	"kernel":      {host.ErrKernel, http.StatusNotImplemented},
	"exists":      {host.ErrExists, http.StatusConflict},
	"refused":     {host.ErrRefused, http.StatusConflict},
}

// Describe returns an error's text and the kind that Restore takes.
func Describe(err error) (message, kind string) {
	if errors.Is(err, host.ErrRefused) {
		return err.Error(), "refused"
	}
	for name, k := range kinds {
		if errors.Is(err, k.err) {
			return err.Error(), name
		}
	}
	return err.Error(), ""
}

// Restore makes an error from what Describe returned.
func Restore(message, kind string) error { return failure{Message: message, Kind: kind}.err() }

// Answer writes a result as JSON, or an error with its kind.
func Answer(w http.ResponseWriter, result any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err == nil {
		_ = json.NewEncoder(w).Encode(result) // the client is gone
		return
	}
	f, code := failure{}, http.StatusInternalServerError
	f.Message, f.Kind = Describe(err)
	var refusal *host.Refusal
	if errors.As(err, &refusal) {
		f.Reasons = refusal.Reasons
	}
	if k, ok := kinds[f.Kind]; ok {
		code = k.code
	}
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(f)
}

// wireError is a failure that came back; it wraps its kind.
type wireError struct {
	message string
	kind    error
}

func (e *wireError) Error() string { return e.message }
func (e *wireError) Unwrap() error { return e.kind }

// err turns a failure back into an error.
func (f failure) err() error {
	if f.Kind == "refused" && len(f.Reasons) > 0 {
		return &host.Refusal{Reasons: f.Reasons}
	}
	if kind, ok := kinds[f.Kind]; ok {
		return &wireError{f.Message, kind.err}
	}
	return errors.New(f.Message)
}

// Wire is HTTP with JSON over a Unix socket. It may be used from several
// goroutines at once.
type Wire struct{ http *http.Client }

// NewWire returns a wire to a socket; nothing is opened yet.
func NewWire(socketPath string) *Wire {
	return &Wire{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socketPath)
		},
	}}}
}

// Close drops idle connections.
func (w *Wire) Close() { w.http.CloseIdleConnections() }

// Call sends in and decodes the answer into out, unless that is nil.
func (w *Wire) Call(ctx context.Context, method, path string, in, out any) error {
	response, err := w.Send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(response.Body).Decode(out); err != nil {
		return fmt.Errorf("decode answer: %w", err)
	}
	return nil
}

// Send returns the response of a successful request; the caller closes its
// body.
func (w *Wire) Send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://torpor"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := w.http.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer response.Body.Close()
	var f failure
	if err := json.NewDecoder(response.Body).Decode(&f); err != nil {
		return nil, fmt.Errorf("request was answered by %s", response.Status)
	}
	return nil, f.err()
}
