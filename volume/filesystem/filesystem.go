// Package filesystem makes, checks, grows and recognises file systems on block
// devices of the host, by the programs that belong to them.
//
// Functions hold no state and may be called concurrently for different devices.
// They need root. Nothing here decides whether a device may be formatted: Make
// overwrites what is there.
package filesystem

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"torpor/host"
)

// programs are what each file system is handled with; a Debian package has them.
var programs = map[host.FileSystem]struct {
	debian     string
	make, grow []string
}{
	// There is nothing to discard on a new volume. What mkfs would leave to the
	// kernel to be written later is zeros there too.
	host.Ext4:  {"e2fsprogs", []string{"mkfs.ext4", "-q", "-F", "-m", "0", "-E", "nodiscard"}, []string{"resize2fs", "DEVICE"}},
	host.XFS:   {"xfsprogs", []string{"mkfs.xfs", "-q", "-f", "-K"}, []string{"xfs_growfs", "DIR"}},
	host.Btrfs: {"btrfs-progs", []string{"mkfs.btrfs", "-q", "-f", "-K"}, []string{"btrfs", "filesystem", "resize", "max", "DIR"}},
}

// Make makes a file system. Whatever the device holds is lost.
func Make(ctx context.Context, fs host.FileSystem, device string) error {
	p, ok := programs[fs]
	if !ok {
		return fmt.Errorf("make file system %q: %w", fs, host.ErrUnsupported)
	}
	if _, err := run(ctx, p.debian, append(append([]string{}, p.make...), device)...); err != nil {
		return fmt.Errorf("make %s on %s: %w", fs, device, err)
	}
	return nil
}

// What e2fsck's exit code means beyond these bits needs a person.
const (
	fsckCorrected = 1
	fsckReboot    = 2
)

// Check repairs what can be repaired without asking, before a mount. xfs and
// btrfs do that when they are mounted.
func Check(ctx context.Context, fs host.FileSystem, device string) error {
	if fs != host.Ext4 {
		return nil
	}
	said, err := run(ctx, programs[fs].debian, "e2fsck", "-p", device)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode()&^(fsckCorrected|fsckReboot) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("check %s on %s: %w (%s); run e2fsck -f on it, attached by torpor volume attach", fs, device, err, said)
	}
	return nil
}

// Grow makes a mounted file system as large as its device is.
func Grow(ctx context.Context, fs host.FileSystem, device, dir string) error {
	p, ok := programs[fs]
	if !ok {
		return fmt.Errorf("grow file system %q: %w", fs, host.ErrUnsupported)
	}
	args := append([]string{}, p.grow...)
	for i, arg := range args {
		args[i] = strings.NewReplacer("DEVICE", device, "DIR", dir).Replace(arg)
	}
	if _, err := run(ctx, p.debian, args...); err != nil {
		return fmt.Errorf("grow %s on %s: %w", fs, device, err)
	}
	return nil
}

// magics are where the file systems have their names.
var magics = []struct {
	fs     host.FileSystem
	offset int64
	magic  string
}{
	{host.Ext4, 0x438, "\x53\xef"}, // ext2 and ext3 too, which the kernel mounts as ext4
	{host.XFS, 0, "XFSB"},
	{host.Btrfs, 0x10040, "_BHRfS_M"},
}

// Detect says which file system is on a device: "" if none that is known here.
func Detect(device string) (host.FileSystem, error) {
	f, err := os.Open(device)
	if err != nil {
		return "", fmt.Errorf("look for a file system: %w", err)
	}
	defer f.Close()
	for _, m := range magics {
		b := make([]byte, len(m.magic))
		if _, err := f.ReadAt(b, m.offset); err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("look for a file system: %w", err)
		}
		if string(b) == m.magic {
			return m.fs, nil
		}
	}
	return "", nil
}

// Options are what a file system on a volume is mounted with: space that is not
// needed any more goes back to the log, and a clone may be mounted beside its
// origin, whose identity it has.
func Options(fs host.FileSystem) []string {
	switch fs {
	case host.Ext4:
		return []string{"discard"}
	case host.XFS:
		return []string{"discard", "nouuid"}
	}
	return nil
}

// run runs a program and returns what it printed in one line, which is in its
// errors too.
func run(ctx context.Context, debian string, args ...string) (string, error) {
	path, err := find(args[0])
	if err != nil {
		return "", fmt.Errorf("%s is not installed (Debian has it in %s): %w", args[0], debian, host.ErrNotFound)
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	said := strings.ReplaceAll(strings.TrimSpace(out.String()), "\n", "; ")
	if err != nil && said != "" {
		return said, fmt.Errorf("%s: %w: %s", args[0], err, said)
	}
	return said, err
}

// find looks in the directories of root's programs too: the daemon may have been
// started without them in PATH.
func find(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/bin"} {
		if path, err := exec.LookPath(dir + "/" + name); err == nil {
			return path, nil
		}
	}
	return "", exec.ErrNotFound
}
