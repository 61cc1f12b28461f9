package imagefile

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"torpor/host"
	"torpor/socket"
)

// sample is the content of a file with entries of all kinds, and what is in it.
type sample struct {
	content []byte
	model   map[socket.Key]*socket.Spec
	entries map[socket.Key][][2]int64 // where the living entries of a key are
}

func newSample(t testing.TB) *sample {
	t.Helper()
	r := rand.New(rand.NewPCG(3, 4))
	f, path := newFile(t)
	defer f.Close()
	s := &sample{model: map[socket.Key]*socket.Spec{}, entries: map[socket.Key][][2]int64{}}
	var keys []socket.Key
	for n := range 12 {
		spec := random(r, n)
		check(t, f.Add(spec))
		s.model[spec.Key] = spec
		keys = append(keys, spec.Key)
	}
	for i, k := range keys {
		if i%4 == 1 {
			check(t, f.Remove(k))
			delete(s.model, k)
		}
		for range i % 4 { // those with 2 have two windows
			if i%4 == 2 {
				changed := *s.model[k]
				changed.Window = randomWindow(r)
				s.model[k] = &changed
				check(t, f.SetWindow(k, changed.Window))
			}
		}
	}
	last := random(r, 99)
	check(t, f.Add(last))
	s.model[last.Key] = last
	for k := range s.model {
		p, _, err := f.store.find(&k, f.store.hash(&k))
		check(t, err)
		record := int64(p.record) * unitBytes
		s.entries[k] = append(s.entries[k], [2]int64{record, record + span(p.bytes)})
		if p.hasWindow() {
			window := int64(p.unit) * unitBytes
			s.entries[k] = append(s.entries[k], [2]int64{window, window + span(windowBodyBytes)})
		}
	}
	var err error
	s.content, err = os.ReadFile(path)
	check(t, err)
	return s
}

// touches reports whether a range has bytes of a key's living entries.
func (s *sample) touches(k socket.Key, from, to int64) bool {
	return slices.ContainsFunc(s.entries[k], func(e [2]int64) bool { return from < e[1] && to > e[0] })
}

// survive opens a damaged copy, in which bytes of [from, to) differ, and fails
// the test unless all that was not touched is there, all else is named, nothing
// is wrong and the file is right again.
func (s *sample) survive(t *testing.T, path string, content []byte, from, to int64) *Recovery {
	t.Helper()
	check(t, os.WriteFile(path, content, 0o600))
	f, r, err := Open(path)
	if err != nil {
		t.Fatalf("damage at %d to %d: %v", from, to, err)
	}
	lost, named := 0, map[socket.Key]bool{}
	for _, l := range r.Lost {
		named[l.Key] = true
	}
	for k, want := range s.model {
		got, err := f.Get(k)
		switch {
		case err == nil && !bytes.Equal(got.Append(nil), want.Append(nil)):
			t.Fatalf("damage at %d to %d: wrong record of %v", from, to, k)
		case err != nil && !s.touches(k, from, to):
			t.Fatalf("damage at %d to %d: %v: %v", from, to, k, err)
		case err != nil && !errors.Is(err, host.ErrNotFound):
			t.Fatalf("damage at %d to %d: %v", from, to, err)
		case err != nil:
			lost++
		case named[k]:
			t.Fatalf("damage at %d to %d: %v lives and is named as lost", from, to, k)
		}
	}
	if f.Len() != len(s.model)-lost {
		t.Fatalf("damage at %d to %d: %d connections, %d lost of %d", from, to, f.Len(), lost, len(s.model))
	}
	if lost > 0 && len(r.Lost) == 0 && int64(len(content)) != from {
		t.Fatalf("damage at %d to %d: %d are lost and nothing is said", from, to, lost)
	}
	added := numbered(1 << 20)
	check(t, f.Add(added))
	if f.Has(numbered(5).Key) != (s.model[numbered(5).Key] != nil && !s.touches(numbered(5).Key, from, to)) && s.model[numbered(5).Key] == nil {
		t.Fatalf("damage at %d to %d: a removed connection is back", from, to)
	}
	reopen(t, f, path).Close()
	return r
}

// TestTornTail cuts the file at every byte.
func TestTornTail(t *testing.T) {
	s := newSample(t)
	path := filepath.Join(t.TempDir(), "torn")
	size := int64(len(s.content))
	for n := int64(entriesAt); n <= size; n++ {
		r := s.survive(t, path, s.content[:n], n, size) // after the last whole entry nothing can be said
		if (n%unitBytes != 0) != (r.CutBytes%unitBytes != 0) {
			t.Errorf("cut at %d: %+v", n, r)
		}
	}
	for _, tail := range [][]byte{make([]byte, 1), make([]byte, 4096), bytes.Repeat([]byte{0xff}, 100)} {
		r := s.survive(t, path, append(slices.Clone(s.content), tail...), size, size)
		if r.CutBytes != int64(len(tail)) {
			t.Errorf("a tail of %d bytes: %+v", len(tail), r)
		}
	}
	for n := range int64(entriesAt) {
		check(t, os.WriteFile(path, s.content[:n], 0o600))
		if _, _, err := Open(path); !errors.Is(err, host.ErrCorrupt) {
			t.Fatalf("opened with %d bytes: %v", n, err)
		}
	}
}

// TestFlippedBits flips bits of every byte.
func TestFlippedBits(t *testing.T) {
	s := newSample(t)
	path := filepath.Join(t.TempDir(), "flipped")
	for at := range int64(len(s.content)) {
		if at == headerBytes {
			at = headerCopyAt - 1
		}
		if at > headerBytes && at < headerCopyAt-1 {
			continue
		}
		for bit := at % 3; bit < 8; bit += 3 {
			content := slices.Clone(s.content)
			content[at] ^= 1 << bit
			r := s.survive(t, path, content, at, at+1)
			for k := range s.model {
				named := slices.ContainsFunc(r.Lost, func(l Lost) bool { return s.touches(k, l.Offset, l.Offset+l.Bytes) })
				if s.touches(k, at, at+1) && !named {
					t.Fatalf("bit %d of byte %d: %v is not named: %+v", bit, at, k, r)
				}
			}
			if r.Repairs == 0 {
				t.Fatalf("bit %d of byte %d is not noticed", bit, at)
			}
		}
	}
}

// TestOverwrittenRanges spoils more than one entry.
func TestOverwrittenRanges(t *testing.T) {
	s := newSample(t)
	random := generator(t)
	path := filepath.Join(t.TempDir(), "overwritten")
	for range 1000 {
		content := slices.Clone(s.content)
		from := random.IntN(len(content))
		to := min(len(content), from+random.IntN(600))
		if from < headerBytes && to > headerCopyAt {
			continue
		}
		how := random.IntN(3)
		for i := from; i < to; i++ {
			switch how {
			case 0:
				content[i] = 0
			case 1:
				content[i] = byte(random.Uint32())
			case 2:
				content[i] = s.content[entriesAt+(i+160)%(len(content)-entriesAt)] // entries in a wrong place
			}
		}
		s.survive(t, path, content, int64(from), int64(to))
	}
}

// TestDamageWhileOpen flips bits below an open file.
func TestDamageWhileOpen(t *testing.T) {
	s := newSample(t)
	path := filepath.Join(t.TempDir(), "open")
	random := generator(t)
	for range 1500 {
		check(t, os.WriteFile(path, s.content, 0o600))
		f, _, err := Open(path)
		check(t, err)
		at := entriesAt + random.Int64N(int64(len(s.content)-entriesAt))
		spoiled := []byte{s.content[at] ^ 1<<random.IntN(8)}
		_, err = f.store.file.WriteAt(spoiled, at)
		check(t, err)
		hit := socket.Key{}
		for k, want := range s.model {
			got, err := f.Get(k)
			switch {
			case s.touches(k, at, at+1):
				hit = k
				if !errors.Is(err, host.ErrCorrupt) || !f.Has(k) {
					t.Fatalf("byte %d: %v, %v", at, err, f.Has(k))
				}
			case err != nil:
				t.Fatalf("byte %d: %v", at, err)
			case !bytes.Equal(got.Append(nil), want.Append(nil)):
				t.Fatalf("byte %d: wrong record of %v", at, k)
			}
		}
		compacts := random.IntN(2) == 0
		if compacts {
			r, err := f.Compact()
			check(t, err)
			if hit.Local.IsValid() && len(r.Lost) == 0 {
				t.Fatalf("byte %d: compaction does not name what is lost", at)
			}
			if f.Has(hit) {
				t.Fatalf("byte %d: compaction keeps what is damaged", at)
			}
		} else if hit.Local.IsValid() {
			check(t, f.Remove(hit))
			if f.Has(hit) {
				t.Fatalf("byte %d: is there after it was removed", at)
			}
		}
		check(t, f.Close())
		f, _, err = Open(path)
		check(t, err)
		for k := range s.model {
			if f.Has(k) != (k != hit) {
				t.Fatalf("byte %d: opened again: %v is %v", at, k, f.Has(k))
			}
		}
		check(t, f.Close())
	}
}

// TestLostWindow never gives a record with the window it had before.
func TestLostWindow(t *testing.T) {
	f, path := newFile(t)
	check(t, f.Add(numbered(1)))
	window := f.Stats().Bytes
	check(t, f.SetWindow(numbered(1).Key, socket.Window{Send: 1}))
	check(t, f.Add(numbered(2)))
	check(t, f.Close())
	content, err := os.ReadFile(path)
	check(t, err)
	clear(content[window : window+span(windowBodyBytes)])
	check(t, os.WriteFile(path, content, 0o600))
	f, r, err := Open(path)
	check(t, err)
	defer f.Close()
	named := slices.ContainsFunc(r.Lost, func(l Lost) bool { return l.Key == numbered(1).Key })
	if f.Has(numbered(1).Key) || !f.Has(numbered(2).Key) || !named {
		t.Errorf("opened with %d connections, %+v", f.Len(), r)
	}
}

// TestKilledBetweenSteps makes the states between two writes of one change.
func TestKilledBetweenSteps(t *testing.T) {
	for name, steps := range map[string]func(*store) error{
		"window, not amended": func(s *store) error {
			b := s.header.seal(appendWindow(openEntry(nil), entriesAt/unitBytes, socket.Window{Send: 5}), 0, s.end, kindWindow, live)
			return s.append(b)
		},
		"second window, first lives": func(s *store) error {
			k := numbered(1).Key
			first := uint32(s.end / unitBytes)
			check(t, s.setWindow(&k, socket.Window{Send: 4}))
			check(t, s.setWindow(&k, socket.Window{Send: 5}))
			return s.setMark(first, live)
		},
		"record removed, window lives": func(s *store) error {
			k := numbered(1).Key
			check(t, s.setWindow(&k, socket.Window{Send: 4}))
			return s.setMark(entriesAt/unitBytes, dead)
		},
		"key twice": func(s *store) error {
			spec := numbered(1)
			spec.Window.Send = 5
			return s.append(s.header.seal(spec.Append(openEntry(nil)), 0, s.end, kindRecord, live))
		},
	} {
		f, path := newFile(t)
		check(t, f.Add(numbered(1)))
		check(t, f.Add(numbered(2)))
		check(t, steps(f.store))
		check(t, f.Close())
		report, err := Check(path)
		check(t, err)
		f, r, err := Open(path)
		check(t, err)
		if len(r.Lost) != 0 || r.Repairs != len(report.Problems) || r.Repairs != 1 {
			t.Errorf("%s: opened with %+v, problems %v", name, r, report.Problems)
		}
		s, err := f.Get(numbered(1).Key)
		if name == "record removed, window lives" {
			if !errors.Is(err, host.ErrNotFound) {
				t.Errorf("%s: %v", name, err)
			}
		} else if err != nil || s.Window.Send != 5 {
			t.Errorf("%s: window %d, %v", name, s.Window.Send, err)
		}
		reopen(t, f, path).Close()
	}
}
