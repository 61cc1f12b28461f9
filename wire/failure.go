package wire

import (
	"encoding/json"
	"errors"
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
