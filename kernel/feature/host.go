package feature

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"torpor/kernel/memory"
	"torpor/kernel/proc"
)

func runtimeProbe(name string) probe {
	return probe{Feature{"oci-runtime", true, "making containers", "no service can be started",
		"install it (apt install " + filepath.Base(name) + ") or name another one"},
		func(*machine) (string, error) { return runtimeVersion(name) }}
}

// runtimeVersion returns the first line of what the runtime says of itself.
func runtimeVersion(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil && !strings.Contains(name, "/") {
		path, err = exec.LookPath("/usr/sbin/" + name)
	}
	if err != nil {
		return "", fmt.Errorf("find OCI runtime: %w", err)
	}
	out, err := exec.Command(path, "--version").CombinedOutput()
	first, _, _ := strings.Cut(string(out), "\n")
	if err != nil {
		return "", fmt.Errorf("run %s --version: %w: %s", path, err, first)
	}
	return first, nil
}

func stateProbe(dir string) probe {
	return probe{Feature{"state-directory", true, "keeping checkpoints: sparse files of many TB, mapped executable", "no service can sleep",
		"choose a state directory on ext4, xfs or btrfs, mounted without noexec"},
		func(*machine) (string, error) { return tryStateDir(dir) }}
}

// tryStateDir tries the directory, or the nearest one above it that exists.
func tryStateDir(dir string) (string, error) {
	for {
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() {
			return "", fmt.Errorf("use state directory: %s is not a directory", dir)
		}
		if err == nil {
			break
		}
		if parent := filepath.Dir(dir); errors.Is(err, os.ErrNotExist) && parent != dir {
			dir = parent
			continue
		}
		return "", err
	}
	f, err := os.CreateTemp(dir, ".torpor-check-")
	if err != nil {
		return "", err
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return "", err
	}
	return dir, trySparse(f)
}

// trySparse does to a file what checkpoints do to pages.img.
func trySparse(f *os.File) error {
	const far = 8 << 40 // bytes: where slots may lie
	if err := f.Truncate(far + 2*proc.PageBytes); err != nil {
		return err
	}
	if _, err := f.WriteAt(make([]byte, proc.PageBytes), far); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if used := st.Blocks * 512; used > 1<<20 {
		return fmt.Errorf("write sparse file: one page takes %d bytes", used)
	}
	if err := memory.PunchHole(f, far, proc.PageBytes); err != nil {
		return err
	}
	b, err := unix.Mmap(int(f.Fd()), far, proc.PageBytes, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("map file executable: the file system is mounted noexec: %w", err)
	}
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	return unix.Munmap(b)
}
