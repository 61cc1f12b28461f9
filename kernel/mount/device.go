package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Device mounts the file system of a block device at target. Options are those
// of the file system: "discard", or "key=value".
func Device(kind, device, target string, options []string) error {
	ctx, err := newContext(kind)
	if err != nil {
		return err
	}
	defer ctx.close()
	ctx.set("source", device)
	for _, option := range options {
		if key, value, ok := strings.Cut(option, "="); ok {
			ctx.set(key, value)
		} else if ctx.err == nil {
			ctx.fail("set "+option, unix.FsconfigSetFlag(ctx.fd, option))
		}
	}
	fd, err := ctx.mount(0)
	if err != nil {
		return fmt.Errorf("mount %s: %w", device, err)
	}
	defer unix.Close(fd)
	return attach(fd, target)
}

// Source returns what is mounted at target, the topmost: of a file system on a
// block device its path. "": target is no mount point. It asks nothing of the
// file system, which may be dead.
func Source(target string) (string, error) {
	parent, err := filepath.EvalSymlinks(filepath.Dir(target))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("find mount at %s: %w", target, err)
	}
	path := filepath.Join(parent, filepath.Base(target))
	table, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("find mount at %s: %w", target, err)
	}
	source := ""
	for line := range strings.Lines(string(table)) {
		mounted, fs, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(mounted), strings.Fields(fs)
		if ok && len(left) > 4 && len(right) > 1 && unescape(left[4]) == path {
			source = unescape(right[1])
		}
	}
	return source, nil
}

// unescape undoes what the kernel does to blanks in mountinfo.
func unescape(text string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(text)
}

// Sync writes out what is not yet on the device of a mounted file system.
func Sync(target string) error {
	dir, err := os.Open(target)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", target, err)
	}
	return nil
}
