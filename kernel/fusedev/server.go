package fusedev

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
		text, err := os.ReadFile(filepath.Join(process, "fdinfo", filepath.Base(link)))
		if err != nil {
			continue // gone
		}
		_, number, found := strings.Cut(string(text), "fuse_connection:")
		number, _, _ = strings.Cut(strings.TrimSpace(number), "\n")
		switch {
		case !found:
			sure = false
		case number == minor:
			name, _ := os.ReadFile(process + "/comm")
			names = append(names, fmt.Sprintf("process %s (%s)", filepath.Base(process), strings.TrimSpace(string(name))))
		}
	}
	return slices.Compact(names), sure
}
