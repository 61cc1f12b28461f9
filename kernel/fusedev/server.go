package fusedev

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"torpor/host"
)

// Servers names the processes that have the file system's connection open, for
// people. It is complete if sure; else some process has /dev/fuse open for an
// unknown file system: kernels before 6.17 do not tell which.
func (m Mounted) Servers() (names []string, sure bool) {
	_, minor, _ := strings.Cut(m.Device, ":")
	sure = true
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		if target, err := os.Readlink(link); err != nil || target != "/dev/fuse" {
			continue
		}
		process := filepath.Dir(filepath.Dir(link))
		number, err := connection(filepath.Join(process, "fdinfo", filepath.Base(link)))
		switch {
		case err != nil: // gone
		case number == "":
			sure = false
		case number == minor:
			name, _ := os.ReadFile(process + "/comm")
			names = append(names, fmt.Sprintf("process %s (%s)", filepath.Base(process), strings.TrimSpace(string(name))))
		}
	}
	return slices.Compact(names), sure
}

// connection reads the number of a connection, or "", from fdinfo.
func connection(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	_, number, _ := strings.Cut(string(text), "fuse_connection:")
	number, _, _ = strings.Cut(strings.TrimSpace(number), "\n")
	return number, nil
}

// Check returns an error if the connection is known to be another file
// system's. Kernels before 6.17 do not tell.
func (c *Connection) Check(m Mounted) error {
	number, err := connection(fmt.Sprintf("/proc/self/fdinfo/%d", c.fd))
	if err != nil {
		return fmt.Errorf("look up FUSE connection: %w", err)
	}
	if _, minor, _ := strings.Cut(m.Device, ":"); number != "" && number != minor {
		return fmt.Errorf("descriptor is that of FUSE connection %s, not of %s at %s: %w", number, minor, m.Dir, host.ErrInvalid)
	}
	return nil
}
