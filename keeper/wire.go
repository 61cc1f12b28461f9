package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
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
}

// answer writes a result, or an error with its kind.
func answer(w http.ResponseWriter, result any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err == nil {
		_ = json.NewEncoder(w).Encode(result) // the client is gone
		return
	}
	f, code := failure{Message: err.Error()}, http.StatusInternalServerError
	var refusal *host.Refusal
	if errors.As(err, &refusal) {
		f.Kind, f.Reasons, code = "refused", refusal.Reasons, http.StatusConflict
	}
	for name, kind := range kinds {
		if f.Kind == "" && errors.Is(err, kind.err) {
			f.Kind, code = name, kind.code
		}
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
	if f.Kind == "refused" {
		return &host.Refusal{Reasons: f.Reasons}
	}
	if kind, ok := kinds[f.Kind]; ok {
		return &wireError{f.Message, kind.err}
	}
	return fmt.Errorf("%s", f.Message)
}
