package network

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// occupant names the program that has a port of this host, as well as it can.
func occupant(protocol string, port uint16) string {
	for _, file := range []string{protocol, protocol + "6"} {
		b, err := os.ReadFile("/proc/thread-self/net/" + file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if inode, ok := socketOn(line, protocol, port); ok {
				if name := owner(inode); name != "" {
					return name
				}
			}
		}
	}
	return "another program"
}

// socketOn reads a line of /proc/net/tcp or udp, as in proc_pid_net(5): number,
// local address and port in hexadecimal, remote, state, ..., inode in the tenth
// column.
func socketOn(line, protocol string, port uint16) (inode string, ok bool) {
	const listening = "0A"
	fields := strings.Fields(line)
	if len(fields) < 10 || protocol == "tcp" && fields[3] != listening {
		return "", false
	}
	_, hex, _ := strings.Cut(fields[1], ":")
	n, err := strconv.ParseUint(hex, 16, 16)
	return fields[9], err == nil && uint16(n) == port
}

// owner finds a process that has the socket open.
func owner(inode string) string {
	want := "socket:[" + inode + "]"
	descriptors, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range descriptors {
		if target, err := os.Readlink(fd); err != nil || target != want {
			continue
		}
		process := filepath.Dir(filepath.Dir(fd))
		name, err := os.ReadFile(filepath.Join(process, "comm"))
		if err == nil {
			return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), filepath.Base(process))
		}
	}
	return ""
}
