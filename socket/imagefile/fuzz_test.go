package imagefile

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"

	"torpor/host"
	"torpor/socket"
)

func resealHeader(b []byte) {
	clear(b[headerSumAt:headerSumEnd])
	binary.LittleEndian.PutUint32(b[headerSumAt:], crc32.Checksum(b[:headerBytes], castagnoli))
}

// reseal gives the entries of a made-up file right marks and checksums: of the
// first byte of each the lower bits choose its state.
func reseal(b []byte) {
	for offset := int64(entriesAt); offset+entryHeaderBytes <= int64(len(b)); {
		entry := b[offset:]
		k, n := parseWord(entry)
		if st := state(entry[0] & 3); st != damaged {
			binary.LittleEndian.PutUint32(entry, goldenHeader.mark(offset, st))
		}
		if offset+span(n) > int64(len(b)) || k == 0 {
			offset += unitBytes
			continue
		}
		binary.LittleEndian.PutUint32(entry[entrySumAt:], goldenHeader.sum(entry[entryWordAt:span(n)]))
		offset += span(n)
	}
}

// FuzzOpen opens hostile files: what is opened is consistent and can be used.
func FuzzOpen(f *testing.F) {
	path := filepath.Join(f.TempDir(), "seed")
	writeGolden(f, path)
	good, err := os.ReadFile(path)
	check(f, err)
	f.Add(good, false)
	for _, b := range [][]byte{good[entriesAt:], good[entriesAt : len(good)-20], {}} {
		f.Add(b, true)
	}
	f.Fuzz(func(t *testing.T, b []byte, made bool) {
		if made {
			b = append(goldenHeader.encode(), b...)
			reseal(b)
		}
		path := filepath.Join(t.TempDir(), "sockets")
		check(t, os.WriteFile(path, b, 0o600))
		before, checkErr := Check(path)
		file, r, err := Open(path)
		if (err == nil) != (checkErr == nil) {
			t.Fatalf("opened: %v; checked: %v", err, checkErr)
		}
		if err != nil {
			if !errors.Is(err, host.ErrCorrupt) && !errors.Is(err, host.ErrUnsupported) {
				t.Fatal(err)
			}
			return
		}
		if before.Connections != file.Len() || len(before.Problems) < r.Repairs {
			t.Fatalf("opened with %+v, checked with %+v", r, before)
		}
		n := 0
		for k := range file.All() {
			n++
			use(t, file, k)
		}
		if n != before.Connections {
			t.Fatalf("%d keys of %d connections", n, before.Connections)
		}
		stats := file.Stats()
		if stats.DeadBytes < 0 || stats.Connections > len(b)/unitBytes {
			t.Fatalf("%+v", stats)
		}
		file = again(t, file, path, stats.Connections)
		if _, err := file.Compact(); err != nil {
			t.Fatal(err)
		}
		again(t, file, path, file.Len()).Close()
	})
}

// use does with a connection what can be done.
func use(t *testing.T, file *File, k socket.Key) {
	t.Helper()
	s, err := file.Get(k)
	if err != nil && !errors.Is(err, host.ErrCorrupt) || err == nil && (s.Key != k || s.Validate() != nil) {
		t.Fatalf("%v: %v, %v", k, s, err)
	}
	if !file.Has(k) || file.SetWindow(k, socket.Window{Send: 9}) != nil {
		t.Fatalf("%v is yielded and not there", k)
	}
	if now, err := file.Get(k); err == nil && now.Window.Send != 9 {
		t.Fatalf("%v: window %+v", k, now.Window)
	}
}

// again opens a file again: nothing is to be repaired.
func again(t *testing.T, file *File, path string, connections int) *File {
	t.Helper()
	check(t, file.Close())
	file, r, err := Open(path)
	check(t, err)
	if r.Repairs != 0 || file.Len() != connections {
		t.Fatalf("opened again with %d connections and %+v, want %d", file.Len(), r, connections)
	}
	return file
}
