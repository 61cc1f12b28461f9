package backing

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// FuzzSpec parses any device.json: what is accepted is valid and means the same
// when it is written again.
func FuzzSpec(f *testing.F) {
	golden, err := os.ReadFile(filepath.Join("testdata", "directory-v1", specFile))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Add([]byte(`{"version":1,"size_bytes":-1,"chunk_bytes":9223372036854775807}`))
	f.Add([]byte(`{"version":1,"size_bytes":9223372036854771712,"chunk_bytes":4096}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		s, err := parseSpec(content)
		if err != nil {
			return
		}
		if err := s.Validate(); err != nil {
			t.Fatalf("accepted %+v: %v", s, err)
		}
		again, err := json.Marshal(specDocument{specVersion, s})
		if err != nil {
			t.Fatal(err)
		}
		if same, err := parseSpec(again); err != nil || same != s {
			t.Errorf("%+v became %+v, %v", s, same, err)
		}
	})
}

// TestGolden opens a directory of version 1, which this program would make too.
func TestGolden(t *testing.T) {
	path := filepath.Join("testdata", "directory-v1")
	d, err := OpenDirectory(path, Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	got := make([]byte, 20480)
	if err := d.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	want := bytes.Join([][]byte{make([]byte, 8192), bytes.Repeat([]byte{1}, 4096), make([]byte, 4096), bytes.Repeat([]byte{2}, 4096)}, nil)
	if !bytes.Equal(got, want) {
		t.Error("read something else")
	}
	made := filepath.Join(t.TempDir(), "disk")
	if err := CreateDirectory(made, d.Spec()); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{made, path} {
		content, err := os.ReadFile(filepath.Join(dir, specFile))
		if err != nil || string(content) != "{\"version\":1,\"size_bytes\":20480,\"chunk_bytes\":8192}\n" {
			t.Errorf("%s: %q, %v", dir, content, err)
		}
	}
}
