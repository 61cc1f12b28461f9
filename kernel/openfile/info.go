package openfile

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Info is what /proc/PID/fdinfo says of a descriptor, line by line.
type Info string

// ReadInfo reads the fdinfo of a descriptor of process pid. It does not list
// POSIX record locks of other processes than pid.
func ReadInfo(pid, fd int) (Info, error) {
	path := fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd)
	// Without the poller of os.ReadFile, which makes four more calls a file.
	f, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("read descriptor: %w", &os.PathError{Op: "open", Path: path, Err: err})
	}
	defer unix.Close(f)
	var info strings.Builder
	buffer := make([]byte, 4096)
	for {
		n, err := unix.Read(f, buffer)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return "", fmt.Errorf("read descriptor: %w", &os.PathError{Op: "read", Path: path, Err: err})
		case n == 0:
			return Info(info.String()), nil
		}
		info.Write(buffer[:n])
	}
}

// All returns the values of the lines that begin with "key:".
func (i Info) All(key string) []string {
	var values []string
	for line := range strings.Lines(string(i)) {
		if k, value, ok := strings.Cut(line, ":"); ok && k == key {
			values = append(values, strings.TrimSpace(value))
		}
	}
	return values
}

// ErrNoInfo says that this kernel's fdinfo has no such line.
var ErrNoInfo = errors.New("the kernel does not tell")

// Scan parses the value of the only line with the key.
func (i Info) Scan(key, format string, into ...any) error {
	values := i.All(key)
	if len(values) == 0 {
		return fmt.Errorf("read %q of descriptor: %w", key, ErrNoInfo)
	}
	if _, err := fmt.Sscanf(values[0], format, into...); err != nil {
		return fmt.Errorf("parse %q of descriptor: %q: %w", key, values[0], err)
	}
	return nil
}
