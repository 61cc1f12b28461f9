package image

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"torpor/host"
)

// indexVersion is the format of the index file.
const indexVersion = 1

// index is the file that names images and remembers who uses them. All else
// in a store follows from the directories.
type index struct {
	Version int              `json:"version"`
	Refs    map[string]refTo `json:"refs"`    // by full name
	Holders map[string][]ID  `json:"holders"` // the images that each holder uses
}

// refTo is what a name stands for.
type refTo struct {
	Image  ID        `json:"image"`
	Digest string    `json:"digest,omitempty"` // what the registry gave for the name: of an index or a manifest
	Time   time.Time `json:"time"`             // when it was last pulled or imported
}

func newIndex() *index {
	return &index{Version: indexVersion, Refs: map[string]refTo{}, Holders: map[string][]ID{}}
}

// parseIndex decodes and validates an index file.
func parseIndex(raw []byte) (*index, error) {
	x := newIndex()
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(x); err != nil {
		return nil, fmt.Errorf("decode index: %w: %w", host.ErrCorrupt, err)
	}
	if d.More() {
		return nil, fmt.Errorf("decode index: more follows its end: %w", host.ErrCorrupt)
	}
	if x.Version != indexVersion {
		return nil, fmt.Errorf("decode index: version %d, want %d: %w", x.Version, indexVersion, host.ErrCorrupt)
	}
	if x.Refs == nil || x.Holders == nil {
		return nil, fmt.Errorf("decode index: refs or holders missing: %w", host.ErrCorrupt)
	}
	for key, to := range x.Refs {
		if _, err := parseDigest(string(to.Image)); err != nil {
			return nil, fmt.Errorf("decode index: name %q: %w: %w", key, host.ErrCorrupt, err)
		}
	}
	for holder, ids := range x.Holders {
		for _, id := range ids {
			if _, err := parseDigest(string(id)); err != nil {
				return nil, fmt.Errorf("decode index: holder %q: %w: %w", holder, host.ErrCorrupt, err)
			}
		}
	}
	return x, nil
}

func (x *index) encode() ([]byte, error) {
	raw, err := json.MarshalIndent(x, "", "\t")
	return append(raw, '\n'), err
}

// clone copies the index, so that a change is tried on a copy and kept only
// once it is on disk.
func (x *index) clone() *index {
	c := newIndex()
	for k, v := range x.Refs {
		c.Refs[k] = v
	}
	for k, v := range x.Holders {
		c.Holders[k] = append([]ID(nil), v...)
	}
	return c
}

// holdersOf returns the holders of an image, unsorted.
func (x *index) holdersOf(id ID) []string {
	var out []string
	for holder, ids := range x.Holders {
		for _, have := range ids {
			if have == id {
				out = append(out, holder)
			}
		}
	}
	return out
}
