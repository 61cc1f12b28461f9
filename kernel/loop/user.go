package loop

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Users names who uses the device: mounts in all namespaces, swap, devices
// stacked on it, and processes that have it open. It is for people: what
// changes meanwhile may be missed.
func (d Device) Users() []string {
	return slices.Concat(d.mounts(), d.swap(), d.holders(), d.openers())
}

// mounts looks into one process of each mount namespace.
func (d Device) mounts() []string {
	processes, _ := filepath.Glob("/proc/[0-9]*")
	seen := map[string]bool{}
	var found []string
	for _, dir := range processes {
		namespace, err := os.Readlink(dir + "/ns/mnt")
		if err != nil || seen[namespace] {
			continue
		}
		text, err := os.ReadFile(dir + "/mountinfo")
		if err != nil {
			continue // gone
		}
		seen[namespace] = true
		for line := range strings.Lines(string(text)) {
			if target, ours := d.mountOf(line); ours {
				found = append(found, "mount "+target)
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// mountOf returns where the device is mounted if a line of mountinfo is about
// it. btrfs shows a device number of its own, and the path behind the dash.
func (d Device) mountOf(line string) (string, bool) {
	fields := strings.Fields(line)
	dash := slices.Index(fields, "-")
	if dash < 5 || len(fields) < dash+3 {
		return "", false
	}
	ours := fields[2] == d.numbers() || fields[dash+2] == d.Path()
	return fields[4], ours
}

// numbers are major and minor as in mountinfo.
func (d Device) numbers() string {
	text, err := d.attribute("dev")
	if err != nil {
		return ""
	}
	return text
}

func (d Device) swap() []string {
	text, _ := os.ReadFile("/proc/swaps")
	if strings.Contains(string(text), d.Path()+" ") {
		return []string{"swap"}
	}
	return nil
}

func (d Device) holders() []string {
	entries, _ := os.ReadDir(d.sys("holders"))
	var found []string
	for _, e := range entries {
		found = append(found, "device "+e.Name())
	}
	return found
}

func (d Device) openers() []string {
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	var found []string
	for _, link := range links {
		if target, err := os.Readlink(link); err != nil || target != d.Path() {
			continue
		}
		pid := strings.Split(link, "/")[2]
		name, _ := os.ReadFile("/proc/" + pid + "/comm")
		found = append(found, fmt.Sprintf("process %s (%s)", pid, strings.TrimSpace(string(name))))
	}
	return slices.Compact(found)
}
