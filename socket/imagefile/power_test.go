package imagefile

import (
	"bytes"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"torpor/host"
	"torpor/socket"
)

// TestPowerCut mixes sectors of a file as it was synced with those of the same
// file after more changes, as a disk may after a power failure.
func TestPowerCut(t *testing.T) {
	r := generator(t)
	const sector = 512
	for range 60 {
		f, path := newFile(t)
		before := map[socket.Key]*socket.Spec{}
		for n := range 60 {
			s := random(r, n)
			check(t, f.Add(s))
			before[s.Key] = s
		}
		check(t, f.Sync())
		synced, err := os.ReadFile(path)
		check(t, err)
		after := maps.Clone(before)
		for k, s := range before {
			switch r.IntN(4) {
			case 0:
				check(t, f.Remove(k))
				delete(after, k)
			case 1:
				changed := *s
				changed.Window = randomWindow(r)
				check(t, f.SetWindow(k, changed.Window))
				after[k] = &changed
			}
		}
		for n := 100; n < 130; n++ {
			s := random(r, n)
			check(t, f.Add(s))
			after[s.Key] = s
		}
		check(t, f.Close())
		changed, err := os.ReadFile(path)
		check(t, err)
		for range 20 {
			cut := mix(r, synced, changed, sector)
			path := filepath.Join(t.TempDir(), "cut")
			check(t, os.WriteFile(path, cut, 0o600))
			f, _, err := Open(path)
			check(t, err)
			for k := range f.All() {
				got, err := f.Get(k)
				check(t, err)
				is := func(want *socket.Spec) bool { return want != nil && bytes.Equal(want.Append(nil), got.Append(nil)) }
				if !is(before[k]) && !is(after[k]) {
					t.Fatalf("%v was never so", k)
				}
			}
			for k := range before {
				if before[k] == after[k] && !f.Has(k) {
					t.Fatalf("%v was synced, not changed, and is gone", k)
				}
			}
			reopen(t, f, path).Close()
		}
	}
}

// mix takes each sector from one of two versions of a file.
func mix(r *rand.Rand, synced, changed []byte, sector int) []byte {
	size := len(synced) + r.IntN(len(changed)-len(synced)+1)
	cut := make([]byte, size)
	copy(cut, synced)
	for at := 0; at < size; at += sector {
		if r.IntN(2) == 0 {
			copy(cut[at:min(at+sector, size)], changed[at:])
		}
	}
	return cut
}

// TestForgedEntries lets a peer send entries: they are not taken for some when
// the length of the record around them is damaged, unless the peer knew the
// file's random numbers.
func TestForgedEntries(t *testing.T) {
	f, path := newFile(t)
	check(t, f.Close())
	empty, err := os.ReadFile(path)
	check(t, err)
	own, _, err := decodeHeader(empty)
	check(t, err)
	for name, known := range map[string]header{"guessed": newHeader(), "salt known": {salt: own.salt, seed: ^own.seed}, "known": own} {
		check(t, os.WriteFile(path, empty, 0o600))
		f, _, err := Open(path)
		check(t, err)
		carrier := numbered(1)
		// Where unread bytes begin within the entry depends on the lengths alone.
		carrier.Unread = make([]byte, 4000)
		start := int64(len(carrier.Append(openEntry(nil)))) - 4000
		carrier.Unread = carrier.Unread[:0]
		for int64(len(carrier.Unread)) < 4000 {
			offset := entriesAt + start + int64(len(carrier.Unread))
			if offset%unitBytes != 0 {
				carrier.Unread = append(carrier.Unread, 0)
				continue
			}
			at := len(carrier.Unread)
			carrier.Unread = numbered(int(offset)).Append(openEntry(carrier.Unread))
			carrier.Unread = known.seal(carrier.Unread, at, offset, kindRecord, live)
		}
		carrier.Unread = carrier.Unread[:4000]
		check(t, f.Add(carrier))
		check(t, f.Add(numbered(2)))
		check(t, f.Close())
		content, err := os.ReadFile(path)
		check(t, err)
		content[entriesAt+entryWordAt] ^= 0xff
		check(t, os.WriteFile(path, content, 0o600))
		f, r, err := Open(path)
		check(t, err)
		if _, err := f.Get(carrier.Key); !errors.Is(err, host.ErrNotFound) || !f.Has(numbered(2).Key) || len(r.Lost) == 0 {
			t.Errorf("%s: carrier: %v, %+v", name, err, r)
		}
		if accepted := f.Len() > 1; accepted != (name == "known") {
			t.Errorf("%s: %d connections", name, f.Len())
		}
		check(t, f.Close())
	}
}
