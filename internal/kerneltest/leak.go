package kerneltest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// leakWatch looks for what the tests of a process left behind.
type leakWatch struct {
	dir    string         // the tests' temporary directory
	mark   string         // NAME=VALUE in the environment of the processes they started
	before map[int]string // open descriptors before the tests
}

// settle looks until nothing is left or the time is over, and returns what is.
func (w *leakWatch) settle(within time.Duration) []string {
	for deadline := time.Now().Add(within); ; time.Sleep(50 * time.Millisecond) {
		runtime.GC() // closes pidfds of processes that were only looked up
		leaks := slices.Concat(w.processes(), w.mounts(), descriptors(w.before), goroutines(), w.files())
		if len(leaks) == 0 || time.Now().After(deadline) {
			return leaks
		}
	}
}

// processes finds children, marked processes, and those that live below the
// directory: containers have an environment of their own.
func (w *leakWatch) processes() []string {
	var leaks []string
	self := os.Getpid()
	entries, _ := filepath.Glob("/proc/[0-9]*")
	for _, entry := range entries {
		pid, err := strconv.Atoi(filepath.Base(entry))
		if err != nil || pid == self {
			continue
		}
		status, err := os.ReadFile(entry + "/status")
		if err != nil {
			continue // gone
		}
		environ, _ := os.ReadFile(entry + "/environ")
		switch {
		case strings.Contains(string(status), fmt.Sprintf("\nPPid:\t%d\n", self)):
		case slices.Contains(strings.Split(string(environ), "\x00"), w.mark):
		case w.livesIn(entry):
		default:
			continue
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(string(status), "Name:\t"), "\n")
		leaks = append(leaks, fmt.Sprintf("process %d (%s)", pid, name))
	}
	return leaks
}

func (w *leakWatch) livesIn(entry string) bool {
	for _, link := range []string{"exe", "root", "cwd"} {
		target, err := os.Readlink(filepath.Join(entry, link))
		if err == nil && (target == w.dir || strings.HasPrefix(target, w.dir+"/")) {
			return true
		}
	}
	return false
}

// mounts finds those in this process's mount namespace, where its first thread
// may not be.
func (w *leakWatch) mounts() []string {
	info, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return []string{"mounts: " + err.Error()}
	}
	var leaks []string
	for line := range strings.Lines(string(info)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], w.dir+"/") {
			leaks = append(leaks, "mount "+fields[4])
		}
	}
	return leaks
}

func (w *leakWatch) files() []string {
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		return []string{"files: " + err.Error()}
	}
	var leaks []string
	for _, e := range entries {
		leaks = append(leaks, "file "+filepath.Join(w.dir, e.Name()))
	}
	return leaks
}

// openDescriptors maps this process's descriptors to what they are open on.
func openDescriptors() map[int]string {
	open := map[int]string{}
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil { // not the listing's own
			open[fd] = target
		}
	}
	return open
}

// descriptors finds those that were not open before, but for the two that Go's
// network poller makes once.
func descriptors(before map[int]string) []string {
	runtimes := map[string]int{"anon_inode:[eventpoll]": 1, "anon_inode:[eventfd]": 1}
	now := openDescriptors()
	var leaks []string
	for _, fd := range slices.Sorted(maps.Keys(now)) {
		target := now[fd]
		switch {
		case before[fd] == target:
		case runtimes[target] > 0:
			runtimes[target]--
		default:
			leaks = append(leaks, fmt.Sprintf("descriptor %d (%s)", fd, target))
		}
	}
	return leaks
}

// goroutines finds those that run Torpor's code, but for the caller.
func goroutines() []string {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	var leaks []string
	for i, stack := range strings.Split(string(stacks), "\n\n") {
		if i == 0 {
			continue // this one
		}
		if _, start, ok := strings.Cut(stack, "created by torpor/"); ok {
			where, _, _ := strings.Cut(start, "\n")
			leaks = append(leaks, "goroutine of torpor/"+where)
		}
	}
	return leaks
}
