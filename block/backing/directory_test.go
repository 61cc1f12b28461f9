package backing_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"torpor/block"
	"torpor/block/backing"
)

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}

func openDirectory(t testing.TB, path string) *backing.Directory {
	t.Helper()
	d, err := backing.OpenDirectory(path, backing.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// TestChunks looks which files there are.
func TestChunks(t *testing.T) {
	const chunk = 64 << 10
	path := filepath.Join(t.TempDir(), "disk")
	if err := backing.CreateDirectory(path, backing.DirectorySpec{SizeBytes: 3*chunk + 4096, ChunkBytes: chunk}); err != nil {
		t.Fatal(err)
	}
	d := openDirectory(t, path)
	look := func(want ...string) {
		t.Helper()
		if diff := cmp.Diff(append(want, "device.json"), names(t, path)); diff != "" {
			t.Error(diff)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	look()
	do(d.Zero(block.Range{LenBytes: 2 * chunk}, block.KeepAllocated))
	do(d.ReadAt(make([]byte, 2*chunk), 0))
	look()
	do(d.WriteAt(bytes.Repeat([]byte{1}, 8192), chunk-4096, 0))
	do(d.WriteAt(bytes.Repeat([]byte{3}, 4096), 3*chunk, 0))
	look("00000000", "00000001", "00000003")
	for name, want := range map[string]int64{"00000000": chunk, "00000003": 4096} {
		if info, err := os.Stat(filepath.Join(path, name)); err != nil || info.Size() != want || info.Sys().(*syscall.Stat_t).Blocks*512 < want {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	do(d.Discard(block.Range{Start: 4096, LenBytes: 2*chunk - 4096}, 0))
	look("00000000", "00000003")
	do(d.Discard(block.Range{Start: 3 * chunk, LenBytes: 4096}, block.FUA))
	look("00000000")
	do(d.Close())
	d = openDirectory(t, path)
	do(d.Discard(block.Range{LenBytes: 3*chunk + 4096}, 0))
	look()
	do(d.Close())
}

// TestFilesAreClosed uses more chunks than may be open.
func TestFilesAreClosed(t *testing.T) {
	const chunk = 4096
	path := filepath.Join(t.TempDir(), "disk")
	if err := backing.CreateDirectory(path, backing.DirectorySpec{SizeBytes: 100 * chunk, ChunkBytes: chunk}); err != nil {
		t.Fatal(err)
	}
	d := openDirectory(t, path)
	d.LimitOpen(7)
	for i := range 100 {
		if err := d.WriteAt(bytes.Repeat([]byte{byte(i)}, chunk), block.Offset(i*chunk), 0); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		b := make([]byte, chunk)
		if err := d.ReadAt(b, block.Offset(i*chunk)); err != nil || !bytes.Equal(b, bytes.Repeat([]byte{byte(i)}, chunk)) {
			t.Fatalf("chunk %d: %v", i, err)
		}
	}
	if n := d.Opened(); n != 7 {
		t.Errorf("%d files are open", n)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// TestShortChunk opens files that a crash of the machine left without their size.
func TestShortChunk(t *testing.T) {
	const chunk = 64 << 10
	path := filepath.Join(t.TempDir(), "disk")
	if err := backing.CreateDirectory(path, backing.DirectorySpec{SizeBytes: 2 * chunk, ChunkBytes: chunk}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(filepath.Join(path, "00000000"), nil, 0o600), os.WriteFile(filepath.Join(path, "00000001"), []byte("begin"), 0o600)); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 2*chunk)
	copy(want[chunk:], "begin")
	read := func(o backing.Options) *backing.Directory {
		t.Helper()
		d, err := backing.OpenDirectory(path, o)
		if err != nil {
			t.Fatal(err)
		}
		got := bytes.Repeat([]byte{9}, 2*chunk)
		if err := d.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("with %+v: read something else, %v", o, err)
		}
		return d
	}
	d := read(backing.Options{ReadOnly: true})
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(filepath.Join(path, "00000000")); err != nil || info.Size() != 0 {
		t.Errorf("reading changed a file: %v, %v", info, err)
	}
	d = read(backing.Options{})
	want[chunk-1] = 5
	if err := d.WriteAt(want[chunk-4096:chunk], chunk-4096, 0); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := read(backing.Options{Direct: true}).Close(); err != nil {
		t.Error(err)
	}
}

// TestDirectoryWithoutSpace fills a file system. What was not written leaves no file.
func TestDirectoryWithoutSpace(t *testing.T) {
	const chunk = 256 << 10
	dir := smallFileSystem(t, "size=1m")
	if err := backing.CreateDirectory(dir, backing.DirectorySpec{SizeBytes: 16 * chunk, ChunkBytes: chunk}); err != nil {
		t.Fatal(err)
	}
	d := openDirectory(t, dir)
	var err error
	written := 0
	for ; err == nil; written++ {
		err = d.WriteAt(make([]byte, 4096), block.Offset(written*chunk), block.FUA)
	}
	written--
	if !errors.Is(err, block.ErrNoSpace) || written < 2 || written > 4 {
		t.Errorf("after %d chunks: %v", written, err)
	}
	if n := len(names(t, dir)); n != written+1 {
		t.Errorf("%d chunks, but files %v", written, names(t, dir))
	}
	if err := errors.Join(d.Discard(block.Range{LenBytes: chunk}, 0), d.WriteAt(make([]byte, 4096), 10*chunk, block.FUA), d.Flush(), d.Close()); err != nil {
		t.Errorf("after space was given back: %v", err)
	}
}

func TestDirectoryIsLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := backing.CreateDirectory(path, backing.DirectorySpec{SizeBytes: 1 << 20, ChunkBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	d := openDirectory(t, path)
	if _, err := backing.OpenDirectory(path, backing.Options{}); !errors.Is(err, syscall.EWOULDBLOCK) || !strings.Contains(err.Error(), "this process") {
		t.Errorf("opened twice to write: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func TestCreateDirectoryRefuses(t *testing.T) {
	dir := t.TempDir()
	for _, s := range []backing.DirectorySpec{
		{SizeBytes: 1, ChunkBytes: 4096},
		{SizeBytes: -4096, ChunkBytes: 4096},
		{SizeBytes: 4096},
		{SizeBytes: 4096, ChunkBytes: 100},
		{SizeBytes: 1 << 50, ChunkBytes: 4096},
	} {
		if err := backing.CreateDirectory(filepath.Join(dir, "bad"), s); err == nil {
			t.Errorf("made %+v", s)
		}
	}
	if len(names(t, dir)) != 0 {
		t.Errorf("left %v", names(t, dir))
	}
	good := backing.DirectorySpec{SizeBytes: 1 << 20, ChunkBytes: 4096}
	if err := os.WriteFile(filepath.Join(dir, "device.json.new"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := backing.CreateDirectory(dir, good); err != nil {
		t.Errorf("after a crash: %v", err)
	}
	if err := backing.CreateDirectory(dir, good); !errors.Is(err, syscall.EEXIST) || !strings.Contains(err.Error(), "device.json") {
		t.Errorf("made twice: %v", err)
	}
	d := openDirectory(t, dir)
	if d.Spec() != good {
		t.Errorf("is %+v", d.Spec())
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// TestSpecFile opens directories with other content in device.json.
func TestSpecFile(t *testing.T) {
	for content, ok := range map[string]bool{
		`{"version":1,"size_bytes":8192,"chunk_bytes":4096}`:           true,
		`{"version":2,"size_bytes":8192,"chunk_bytes":4096}`:           false,
		`{"version":1,"size_bytes":8192,"chunk_bytes":0}`:              false,
		`{"version":1,"size_bytes":8192,"chunk_bytes":4096,"other":1}`: false,
		`{"version":1,"size_bytes":8192,"chunk_bytes":4096}{}`:         false,
		`{"version":1,"size_bytes":8192`:                               false,
		``:                                                             false,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "device.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := backing.OpenDirectory(dir, backing.Options{ReadOnly: true})
		if (err == nil) != ok {
			t.Errorf("%s: %v", content, err)
		}
		if d != nil {
			d.Close()
		}
	}
	if _, err := backing.OpenDirectory(t.TempDir(), backing.Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without device.json: %v", err)
	}
}
