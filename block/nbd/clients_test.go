package nbd

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"torpor/internal/kerneltest"
)

// These tests are about clients that others wrote.

const mib = 1 << 20

// uriOf is how they call an export.
func uriOf(socket, name string) string { return "nbd+unix:///" + name + "?socket=" + socket }

// sparseFile makes a file with data, holes, and zeros.
func sparseFile(t *testing.T, sizeBytes int64) (path string, content []byte) {
	t.Helper()
	content = make([]byte, sizeBytes)
	for at := int64(0); at < sizeBytes; at += 5 * mib {
		rand.Read(content[at:min(at+mib+8192, sizeBytes)])
	}
	path = filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for at := int64(0); at < sizeBytes; at += 4096 {
		if page := content[at : at+4096]; !bytes.Equal(page, make([]byte, 4096)) {
			if _, err := f.WriteAt(page, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := f.Truncate(sizeBytes); err != nil {
		t.Fatal(err)
	}
	return path, content
}

func TestInfo(t *testing.T) {
	kerneltest.Require(t, kerneltest.Program("nbdinfo"))
	d := newRAM(64*mib, 4096)
	if err := d.WriteAt(make([]byte, mib), mib, 0); err != nil {
		t.Fatal(err)
	}
	_, socket := serve(t, ServerSpec{}, Export{Name: "disk", Description: "a disk", Device: d}, Export{Name: "other", Device: newRAM(mib, 512), ReadOnly: true})
	out := run(t, "nbdinfo", uriOf(socket, "disk"))
	wantParts(t, out, "export-size: 67108864", "description: a disk", "block_size_minimum: 4096",
		"block_size_maximum: 33554432", "can_multi_conn: true", "can_df: true", "can_fast_zero: true",
		"can_cache: true", "is_read_only: false", "base:allocation")
	out = run(t, "nbdinfo", "--list", "nbd+unix:///?socket="+socket)
	wantParts(t, out, `export="disk"`, `export="other"`, "is_read_only: true", "block_size_minimum: 512")
	got := strings.Join(strings.Fields(run(t, "nbdinfo", "--map", uriOf(socket, "disk"))), " ")
	if want := "0 1048576 3 hole,zero 1048576 1048576 0 data 2097152 65011712 3 hole,zero"; got != want {
		t.Errorf("map %q, want %q", got, want)
	}
}

func TestCopy(t *testing.T) {
	kerneltest.Require(t, kerneltest.Program("nbdcopy"))
	path, content := sparseFile(t, 64*mib)
	d := newRAM(64*mib, 4096)
	_, socket := serve(t, ServerSpec{}, Export{Name: "disk", Device: d}, Export{Name: "copy", Device: newRAM(64*mib, 4096)})
	run(t, "nbdcopy", "--flush", path, uriOf(socket, "disk"))
	if !bytes.Equal(d.memory, content) || d.count("flush") == 0 {
		t.Errorf("wrong content, or no flush (%d)", d.count("flush"))
	}
	run(t, "nbdcopy", "--destination-is-zero", uriOf(socket, "disk"), uriOf(socket, "copy")) // two exports, several connections
	back := filepath.Join(t.TempDir(), "back")
	run(t, "nbdcopy", uriOf(socket, "copy"), back)
	if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, content) {
		t.Errorf("wrong content of the copy (%v)", err)
	}
	run(t, "nbdcopy", "--request-size=33554432", uriOf(socket, "disk"), back) // the longest
	if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, content) {
		t.Errorf("wrong content of the copy by long requests (%v)", err)
	}
}

func TestQEMUImage(t *testing.T) {
	kerneltest.Require(t, kerneltest.Program("qemu-img"))
	path, content := sparseFile(t, 64*mib)
	d := newRAM(64*mib, 4096)
	_, socket := serve(t, ServerSpec{}, Export{Name: "disk", Device: d})
	run(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", path, uriOf(socket, "disk"))
	if !bytes.Equal(d.memory, content) {
		t.Error("wrong content")
	}
	wantParts(t, run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", path, uriOf(socket, "disk")), "Images are identical")
	wantParts(t, run(t, "qemu-img", "map", "-f", "raw", "--output=json", uriOf(socket, "disk")),
		`"start": 0, "length": 1056768, "depth": 0, "present": true, "zero": false, "data": true`,
		`"start": 1056768, "length": 4186112, "depth": 0, "present": true, "zero": true, "data": false`)
	wantParts(t, run(t, "qemu-img", "info", uriOf(socket, "disk")), "virtual size: 64 MiB")
}

func TestQEMUIO(t *testing.T) {
	kerneltest.Require(t, kerneltest.Program("qemu-io"))
	d := newRAM(64*mib, 4096)
	_, socket := serve(t, ServerSpec{}, Export{Name: "disk", Device: d}, Export{Name: "r", Device: d, ReadOnly: true})
	out := run(t, "qemu-io", "-f", "raw", "-t", "none", uriOf(socket, "disk"),
		"-c", "write -P 5 0 1M", "-c", "write -f -P 6 1M 64k", "-c", "write -P 7 2097664 512", // less than a block: qemu reads and merges
		"-c", "aio_write -P 8 4M 2M", "-c", "aio_flush",
		"-c", "write -z 64k 64k", "-c", "write -z -u 128k 64k", "-c", "discard 256k 64k", "-c", "flush",
		"-c", "read -P 5 0 64k", "-c", "read -P 0 64k 128k", "-c", "read -P 0 256k 64k", "-c", "read -P 5 320k 64k",
		"-c", "read -P 6 1M 64k", "-c", "read -P 7 2097664 512", "-c", "read -P 0 2098176 512", "-c", "read -P 8 4M 2M")
	if strings.Contains(out, "failed") || strings.Contains(out, "rror") {
		t.Errorf("qemu-io:\n%s", out)
	}
	for verb, least := range map[string]int{"fua": 1, "zero": 2, "discard": 1, "flush": 1} {
		if d.count(verb) < least {
			t.Errorf("%s: %d times, want %d", verb, d.count(verb), least)
		}
	}
	if out, err := try(t, "qemu-io", "-f", "raw", uriOf(socket, "r"), "-c", "write 0 4k"); err == nil && !strings.Contains(out, "read-only") {
		t.Errorf("write to a read-only export:\n%s", out)
	}
	wantParts(t, run(t, "qemu-io", "-r", "-f", "raw", uriOf(socket, "r"), "-c", "read -P 6 1M 64k"), "read 65536/65536 bytes")
}

func TestQEMUList(t *testing.T) {
	kerneltest.Require(t, kerneltest.Program("qemu-nbd"))
	_, socket := serve(t, ServerSpec{}, Export{Name: "disk", Description: "a disk", Device: newRAM(64*mib, 4096)})
	wantParts(t, run(t, "qemu-nbd", "--list", "-k", socket), "exports available: 1", "export: 'disk'", "description: a disk",
		"min block: 4096", "max block: 33554432", "base:allocation", "multi", "fast-zero")
}

func TestFioVerifies(t *testing.T) {
	kerneltest.Require(t, kerneltest.Program("fio"))
	s, _ := serve(t, ServerSpec{}, Export{Name: "disk", Device: newRAM(64*mib, 4096)})
	run(t, "fio", "--name=verify", "--ioengine=nbd", "--uri=nbd://127.0.0.1:"+serveTCP(t, s)+"/disk", "--rw=randwrite",
		"--bsrange=4k-256k", "--blockalign=4k", "--iodepth=16", "--size=64m", "--verify=crc32c", "--verify_fatal=1",
		"--fsync=64")
}

// TestNbdkitProxies has nbdkit be a client on behalf of another one, over two
// connections.
func TestNbdkitProxies(t *testing.T) {
	kerneltest.Require(t, kerneltest.Program("nbdkit"), kerneltest.Program("nbdcopy"))
	path, content := sparseFile(t, 16*mib)
	d := newRAM(16*mib, 4096)
	_, socket := serve(t, ServerSpec{}, Export{Name: "disk", Device: d})
	run(t, "nbdkit", "-U", "-", "nbd", "socket="+socket, "export=disk", "--run", `nbdcopy --flush `+path+` "$uri"`)
	if !bytes.Equal(d.memory, content) {
		t.Error("wrong content")
	}
}
