package fusedev

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"torpor/host"
	"torpor/internal/kerneltest"
	"torpor/kernel/mount"
	"torpor/kernel/thread"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// mountTest mounts a file system whose first request, INIT, waits to be read.
func mountTest(t *testing.T) (*Connection, string) {
	t.Helper()
	kerneltest.Require(t, kerneltest.Root)
	dir := t.TempDir() + "/a mount"
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c, err := Mount(dir, MountSpec{Source: "a source", Subtype: "test", MaxReadBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			t.Error(err)
		}
		c.Close()
	})
	return c, dir
}

func TestMount(t *testing.T) {
	c, dir := mountTest(t)
	m, err := FindAt(dir)
	if err != nil || m.Dir != dir || m.Subtype != "test" || m.Source != "a source" {
		t.Errorf("found %+v, %v", m, err)
	}
	servers, sure := m.Servers()
	if sure && (len(servers) != 1 || !strings.Contains(servers[0], "fusedev.test")) {
		t.Errorf("servers: %q", servers)
	}
	if err := c.Check(m); err != nil {
		t.Error(err)
	}
	if err := c.Check(Mounted{Dir: dir, Device: "0:1"}); sure && !errors.Is(err, host.ErrInvalid) {
		t.Errorf("other file system: %v", err)
	}
	if mounted, err := mount.Mounted(dir); err != nil || !mounted { // though nobody answers
		t.Errorf("mounted: %v, %v", mounted, err)
	}
	buf := make([]byte, 1<<20+4096)
	n, err := c.Read(buf)
	const opInit = 26
	if err != nil || n < 40 || binary.LittleEndian.Uint32(buf[4:]) != opInit {
		t.Errorf("first request: %d bytes, %v: % x", n, err, buf[:n])
	}
	answer := make([]byte, 16)
	binary.LittleEndian.PutUint32(answer, 16)
	copy(answer[8:], buf[8:16])
	answer[8] ^= 0x40 // a request that nobody waits for
	if err := c.Write(answer); err != nil {
		t.Error(err)
	}
	if err := c.Write(answer[:8]); err == nil {
		t.Error("the kernel took half a header")
	}
	if err := c.Wake(99); !errors.Is(err, unix.ENOENT) {
		t.Errorf("wake by a file that there is not: %v", err)
	}
}

func TestAbort(t *testing.T) {
	c, dir := mountTest(t)
	second, err := c.Duplicate()
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := Abort(dir); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1<<20+4096)); err != io.EOF {
		t.Errorf("read %d bytes, %v", n, err)
	}
	if _, err := FindAt(dir); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("still mounted, though nobody used it: %v", err)
	}
	if err := Abort(dir); err == nil {
		t.Error("aborted what is not mounted")
	}
}

func TestFindAt(t *testing.T) {
	for _, dir := range []string{"/", "/proc", "/no/such/directory"} {
		if m, err := FindAt(dir); !errors.Is(err, host.ErrNotFound) {
			t.Errorf("%s: %+v, %v", dir, m, err)
		}
	}
}

// TestFindAtByThread: mounts are those of the calling thread's namespace.
func TestFindAtByThread(t *testing.T) {
	kerneltest.Require(t, kerneltest.MntNS)
	_, dir := mountTest(t)
	err := thread.Do(func() error {
		err := errors.Join(unix.Unshare(unix.CLONE_NEWNS), mount.Private("/"), mount.Detach(dir))
		if err == nil {
			_, err = FindAt(dir)
		}
		return err
	})
	if !errors.Is(err, host.ErrNotFound) {
		t.Errorf("in a namespace without it: %v", err)
	}
	if _, err := FindAt(dir); err != nil {
		t.Error(err)
	}
}

func TestParse(t *testing.T) {
	for line, want := range map[string]Mounted{
		`42 27 0:39 / /a\040b\134c rw,relatime shared:1 - fuse.x a\011b rw`: {`/a b\c`, "x", "a\tb", "0:39"},
		`42 27 0:39 / /a rw - ext4 /dev/sda rw`:                             {"/a", "", "/dev/sda", "0:39"},
		`42 27 0:39 / /a\ rw - fuse.x \0 rw`:                                {`/a\`, "x", `\0`, "0:39"},
	} {
		if got, ok := parse(line); !ok || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", line, got, ok, want)
		}
	}
	for _, line := range []string{"", "-", "1 2 3 4 5 - fuse.x", "1 2 3 4 5 6"} {
		if got, ok := parse(line); ok {
			t.Errorf("%q: got %+v", line, got)
		}
	}
}
