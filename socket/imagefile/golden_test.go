package imagefile

import (
	"bytes"
	"errors"
	"hash/maphash"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"torpor/host"
	"torpor/socket"
)

// goldenHeader is not random.
var goldenHeader = header{salt: 0x01234567, seed: 0x89abcdef}

// writeGolden makes a file with entries of every kind and state, and returns
// what it holds.
func writeGolden(t testing.TB, path string) map[socket.Key]*socket.Spec {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	check(t, err)
	defer f.Close()
	_, err = f.WriteAt(goldenHeader.encode(), 0)
	check(t, err)
	s := newStore(f, goldenHeader, maphash.MakeSeed())
	r := rand.New(rand.NewPCG(5, 6))
	var all []*socket.Spec
	for n := range 6 {
		all = append(all, random(r, n))
	}
	check(t, s.add(all))
	check(t, s.remove(&all[1].Key))
	for _, w := range []socket.Window{{Send: 1}, {SentAt: 1, Send: 2, Maximum: 3, Receive: 4, Updated: 5}} {
		check(t, s.setWindow(&all[2].Key, w))
		all[2].Window = w
	}
	p, _, err := s.find(&all[3].Key, s.hash(&all[3].Key))
	check(t, err)
	start := int64(p.record) * unitBytes
	check(t, (&loader{store: s}).cover(start, start+span(p.bytes)))
	model := map[socket.Key]*socket.Spec{}
	for _, i := range []int{0, 2, 4, 5} {
		model[all[i].Key] = all[i]
	}
	return model
}

// TestGoldenFile keeps files of version 1 readable.
func TestGoldenFile(t *testing.T) {
	golden := filepath.Join("testdata", "image-1.golden")
	path := filepath.Join(t.TempDir(), "sockets")
	model := writeGolden(t, path)
	content, err := os.ReadFile(path)
	check(t, err)
	if *update {
		check(t, os.WriteFile(golden, content, 0o644))
	}
	want, err := os.ReadFile(golden)
	check(t, err)
	if !bytes.Equal(content, want) {
		t.Errorf("the encoding is not that of version %d: raise the version and add a file", version)
	}
	check(t, os.WriteFile(path, want, 0o600))
	report := sound(t, path)
	if report.Connections != 4 || report.Windows != 1 || report.Voids != 1 || report.Version != 1 || report.Bytes != int64(len(want)) || report.UnreadBytes == 0 {
		t.Errorf("report: %+v", report)
	}
	f, r, err := Open(path)
	check(t, err)
	defer f.Close()
	if r.Repairs != 0 {
		t.Errorf("opened with %+v", r)
	}
	same(t, f, model)
}

func TestHeaders(t *testing.T) {
	good := goldenHeader.encode()
	for _, test := range []struct {
		name    string
		offsets []int // of bytes that are changed
		want    error
	}{
		{"good", nil, nil},
		{"magic", []int{0}, nil},
		{"copy", []int{headerCopyAt}, nil},
		{"between", []int{1000}, nil},
		{"both magics", []int{0, headerCopyAt}, host.ErrCorrupt},
		{"both versions", []int{8, headerCopyAt + 8}, host.ErrCorrupt},
		{"both salts", []int{24, headerCopyAt + 24}, host.ErrCorrupt},
		{"different places", []int{28, headerCopyAt + 60}, host.ErrCorrupt},
	} {
		b := bytes.Clone(good)
		for _, offset := range test.offsets {
			b[offset] ^= 4
		}
		h, whole, err := decodeHeader(b)
		if !errors.Is(err, test.want) || err == nil && (h != goldenHeader || whole != (test.offsets == nil)) {
			t.Errorf("%s: %+v, %v, %v", test.name, h, whole, err)
		}
	}
	for _, test := range []struct {
		name   string
		offset int
		want   error
	}{{"version", 8, host.ErrUnsupported}, {"length", 12, host.ErrCorrupt}, {"reserved", 20, host.ErrCorrupt}, {"end", 63, host.ErrCorrupt}} {
		b := bytes.Clone(good)
		b[test.offset]++
		resealHeader(b)
		copy(b[headerCopyAt:], b[:headerBytes])
		if _, _, err := decodeHeader(b); !errors.Is(err, test.want) {
			t.Errorf("%s, with a right checksum: %v, want %v", test.name, err, test.want)
		}
	}
}
