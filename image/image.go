package image

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"torpor/host"
)

// ID names an image: the digest of its config, "sha256:" and 64 digits.
type ID string

// LayerID names a layer: the digest of its uncompressed tar stream (diff ID),
// "sha256:" and 64 digits.
type LayerID string

// Image is what a store knows of one image.
type Image struct {
	ID        ID        `json:"id"`
	Refs      []string  `json:"refs"`             // the names it goes by here, sorted, in their short form
	Digest    string    `json:"digest,omitempty"` // of its manifest; "" if it came without one
	Platform  string    `json:"platform"`         // os/arch[/variant]
	SizeBytes int64     `json:"size_bytes"`       // of its files, unpacked; shared layers count in every image
	Created   time.Time `json:"created"`
	Config    Config    `json:"config"`
	Layers    []LayerID `json:"layers"` // lowest first; a layer may occur twice
}

// Config is how an image wants to be run.
type Config struct {
	Entrypoint   []string          `json:"entrypoint,omitempty"`
	Command      []string          `json:"command,omitempty"`
	Env          []string          `json:"env,omitempty"` // NAME=value
	WorkingDir   string            `json:"working_dir,omitempty"`
	User         string            `json:"user,omitempty"`          // name or uid, optionally :group
	ExposedPorts []host.PortSpec   `json:"exposed_ports,omitempty"` // Protocol and Target; sorted
	Volumes      []string          `json:"volumes,omitempty"`       // paths; sorted
	Labels       map[string]string `json:"labels,omitempty"`
	StopSignal   string            `json:"stop_signal,omitempty"`
	Healthcheck  *host.Healthcheck `json:"healthcheck,omitempty"`
}

const digestPrefix = "sha256:"

// parseDigest returns the 64 hexadecimal digits of a sha256 digest.
func parseDigest(s string) (string, error) {
	digits, ok := strings.CutPrefix(s, digestPrefix)
	if !ok {
		return "", fmt.Errorf("parse digest %q: not sha256: %w", s, host.ErrUnsupported)
	}
	if len(digits) != 64 || !isHex(digits) {
		return "", fmt.Errorf("parse digest %q: not 64 lower-case hexadecimal digits: %w", s, host.ErrInvalid)
	}
	return digits, nil
}

func isHex(s string) bool {
	return strings.Trim(s, "0123456789abcdef") == ""
}

func digestOf(sum []byte) string { return digestPrefix + hex.EncodeToString(sum) }

// hex returns the digits of an ID that was checked when it came in.
func (id ID) hex() string { return strings.TrimPrefix(string(id), digestPrefix) }

func (id LayerID) hex() string { return strings.TrimPrefix(string(id), digestPrefix) }
