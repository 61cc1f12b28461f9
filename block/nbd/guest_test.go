package nbd

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"torpor/block"
	"torpor/internal/kerneltest"
)

//go:embed testdata/guest-init
var guestInit []byte

const (
	guestDiskBytes = 32 * mib
	// guestTime is for a machine without KVM that does other things as well;
	// it takes 5 to 8 s.
	guestTime = 2 * time.Minute
)

// TestGuest boots a Linux whose disks are exports. It writes, flushes and
// discards one as it is, and has a file system on the other.
func TestGuest(t *testing.T) {
	kerneltest.Require(t, append(kerneltest.Guest(), kerneltest.Program("mkfs.ext4"), kerneltest.Program("e2fsck"), kerneltest.Program("debugfs"))...)
	raw, formatted := newRAM(guestDiskBytes, 4096), newRAM(guestDiskBytes, 4096)
	formatRAM(t, formatted)
	rawVerbs, formattedVerbs := record(raw), record(formatted)
	_, socket := serve(t, ServerSpec{}, Export{Name: "raw", Device: raw}, Export{Name: "formatted", Device: formatted})
	pattern := make([]byte, 4*mib)
	rand.Read(pattern)

	console := bootGuest(t, pattern, socket, "raw", "formatted")
	if !strings.Contains(console, "guest: done") {
		t.Fatalf("the guest did not finish:\n%s", console)
	}
	wantParts(t, console, fmt.Sprintf("guest: size %d", guestDiskBytes),
		fmt.Sprintf("guest: raw %x", sha256.Sum256(raw.memory)),
		fmt.Sprintf("guest: file %x", sha256.Sum256(pattern)))
	checkRaw(t, raw, pattern)
	checkFormatted(t, formatted, pattern)
	checkOrder(t, "raw", rawVerbs())
	checkOrder(t, "formatted", formattedVerbs())
}

// record returns a function that says what was asked of the device, in order.
func record(d *ram) func() []string {
	var mu sync.Mutex
	var verbs []string
	d.wait = func(verb string) error {
		mu.Lock()
		defer mu.Unlock()
		verbs = append(verbs, verb)
		return nil
	}
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return verbs
	}
}

// checkOrder wants a write, a flush and a discard in this order. That flush is
// the guest's: qemu flushes on its own only when it starts and ends.
func checkOrder(t *testing.T, name string, verbs []string) {
	t.Helper()
	rest := verbs
	for _, verb := range []string{"write", "flush", "discard"} {
		at := slices.Index(rest, verb)
		if at < 0 {
			t.Errorf("%s: no write, flush and discard in this order: %q", name, verbs)
			return
		}
		rest = rest[at+1:]
	}
}

// bootGuest runs guest-init with the exports as disks until it powers off, and
// returns what the guest says.
func bootGuest(t *testing.T, pattern []byte, socket string, exports ...string) string {
	t.Helper()
	initrd := filepath.Join(t.TempDir(), "initrd")
	writeInitrd(t, initrd, pattern)
	args := []string{"-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-serial", "stdio",
		"-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "256",
		"-kernel", filepath.Join(kerneltest.GuestKernel, "vmlinuz"), "-initrd", initrd,
		"-append", "console=ttyS0 quiet panic=-1"}
	for _, name := range exports {
		args = append(args, "-device", "virtio-blk-pci,drive="+name, "-blockdev", "driver=nbd,node-name="+name+
			",server.type=unix,server.path="+socket+",export="+name+",discard=unmap,cache.direct=on")
	}
	ctx, cancel := context.WithTimeout(t.Context(), guestTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, "qemu-system-x86_64", args...).CombinedOutput()
	if ctx.Err() != nil {
		err = fmt.Errorf("not done after %v", guestTime)
	}
	if err != nil {
		t.Fatalf("run guest: %v\n%s", err, out)
	}
	return string(out)
}

// writeInitrd makes the files that the guest has.
func writeInitrd(t *testing.T, path string, pattern []byte) {
	t.Helper()
	busybox, err := kerneltest.Busybox()
	if err != nil {
		t.Fatal(err)
	}
	var i initramfs
	for _, dir := range []string{"bin", "dev", "mnt", "modules", "proc"} {
		i.add(dir, cpioDir, nil)
	}
	modules, err := filepath.Glob(filepath.Join(kerneltest.GuestKernel, "virtio*.ko"))
	if err != nil {
		t.Fatal(err)
	}
	from := map[string]string{"bin/busybox": busybox}
	for _, module := range modules {
		from["modules/"+filepath.Base(module)] = module
	}
	for name, source := range from {
		content, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		i.add(name, cpioFile, content)
	}
	i.add("init", cpioFile, guestInit)
	i.add("pattern", cpioFile, pattern)
	if err := i.write(path); err != nil {
		t.Fatal(err)
	}
}

// checkRaw looks for what guest-init wrote to the disk and discarded.
func checkRaw(t *testing.T, d *ram, pattern []byte) {
	t.Helper()
	want := make([]byte, guestDiskBytes)
	copy(want[mib:], pattern)
	copy(want[9*512:], pattern[:512])
	clear(want[2*mib : 3*mib])
	if !bytes.Equal(d.memory, want) {
		t.Error("disk: wrong content")
	}
	extents, err := d.Status(block.Range{Start: 2 * mib, LenBytes: mib})
	for _, e := range extents {
		if e.Kind != block.Hole {
			t.Errorf("disk: %v is no hole after it was discarded", e)
			break
		}
	}
	if err != nil {
		t.Errorf("disk: ask for the holes: %v", err)
	}
}

// formatRAM has a file system made on the device.
func formatRAM(t *testing.T, d *ram) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	run(t, "mkfs.ext4", "-q", "-b", "4096", "-E", "nodiscard", path, fmt.Sprintf("%dk", guestDiskBytes/1024))
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.WriteAt(image, 0, 0); err != nil {
		t.Fatal(err)
	}
}

// checkFormatted has the programs of this machine judge the file system.
func checkFormatted(t *testing.T, d *ram, pattern []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, d.memory, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "e2fsck", "-f", "-n", path)
	kept := filepath.Join(t.TempDir(), "kept")
	run(t, "debugfs", "-R", "dump /kept "+kept, path)
	if got, err := os.ReadFile(kept); err != nil || !bytes.Equal(got, pattern) {
		t.Errorf("file system: wrong content of the file (%v)", err)
	}
	if n := bytes.Count(d.memory, pattern[:4096]); n != 1 {
		t.Errorf("file system: the first block of the pattern is there %d times, want 1: the removed file was to be discarded", n)
	}
}
