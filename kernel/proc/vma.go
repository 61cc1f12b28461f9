package proc

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Addr is an address in the address space of the process at hand.
type Addr uint64

// VMA is one mapping of a process. Start and End are page aligned.
type VMA struct {
	Start, End    Addr
	Prot          Prot
	Shared        bool
	Offset        uint64 // in the mapped file, bytes
	Dev           string // "fe:00"
	Inode         uint64
	Name          string   // path, "[heap]", "[anon:...]" or ""
	Flags         []string // two-letter VmFlags of smaps
	ProtectionKey int
	PrivateBytes  int64 // Anonymous of smaps: pages that belong to the process alone
	ResidentBytes int64
}

// Prot is a set of PROT_* bits.
type Prot uint8

// The bits of Prot, as in sys/mman.h.
const (
	ProtRead  Prot = 1
	ProtWrite Prot = 2
	ProtExec  Prot = 4
)

// Len is the mapping's length in bytes.
func (v *VMA) Len() uint64 { return uint64(v.End - v.Start) }

// Has reports whether smaps lists the two-letter flag.
func (v *VMA) Has(flag string) bool {
	for _, f := range v.Flags {
		if f == flag {
			return true
		}
	}
	return false
}

func (v *VMA) String() string { return fmt.Sprintf("%x-%x %s", uint64(v.Start), uint64(v.End), v.Name) }

// VMAs reads /proc/PID/smaps.
func VMAs(pid int) ([]VMA, error) {
	b, err := readFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return nil, fmt.Errorf("read mappings: %w", err)
	}
	return ParseSmaps(bytes.NewReader(b))
}

// Maps reads /proc/PID/maps: VMAs without flags and sizes, several times
// faster than VMAs.
func Maps(pid int) ([]VMA, error) {
	b, err := readFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, fmt.Errorf("read mappings: %w", err)
	}
	return ParseSmaps(bytes.NewReader(b))
}

// ParseSmaps parses the format of /proc/PID/smaps or /proc/PID/maps.
func ParseSmaps(r io.Reader) ([]VMA, error) {
	var vmas []VMA
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if key, value, ok := smapsField(line); ok {
			if len(vmas) == 0 {
				return nil, fmt.Errorf("parse mappings: %q before the first mapping", line)
			}
			if err := vmas[len(vmas)-1].setField(key, value); err != nil {
				return nil, err
			}
			continue
		}
		v, err := parseMapsLine(line)
		if err != nil {
			return nil, err
		}
		vmas = append(vmas, v)
	}
	return vmas, lines.Err()
}

// smapsField splits "Rss:   4 kB"; a mapping's own line has a space before any
// colon that could end its first word.
func smapsField(line string) (key, value string, ok bool) {
	key, value, ok = strings.Cut(line, ":")
	if !ok || key == "" || strings.ContainsAny(key, " -") {
		return "", "", false
	}
	return key, strings.TrimSpace(value), true
}

func (v *VMA) setField(key, value string) error {
	var err error
	switch key {
	case "VmFlags":
		v.Flags = strings.Fields(value)
	case "ProtectionKey":
		v.ProtectionKey, err = strconv.Atoi(value)
	case "Anonymous":
		v.PrivateBytes, err = parseKB(value)
	case "Rss":
		v.ResidentBytes, err = parseKB(value)
	}
	if err != nil {
		return fmt.Errorf("parse mappings: %s %q: %w", key, value, err)
	}
	return nil
}

func parseKB(s string) (int64, error) {
	n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(s, "kB")), 10, 64)
	return n << 10, err
}

func parseMapsLine(line string) (VMA, error) {
	var v VMA
	fields := strings.SplitN(line, " ", 6)
	if len(fields) < 5 || len(fields[1]) != 4 {
		return v, fmt.Errorf("parse mappings: line %q", line)
	}
	start, end, ok := strings.Cut(fields[0], "-")
	from, err1 := strconv.ParseUint(start, 16, 64)
	to, err2 := strconv.ParseUint(end, 16, 64)
	offset, err3 := strconv.ParseUint(fields[2], 16, 64)
	inode, err4 := strconv.ParseUint(fields[4], 10, 64)
	if !ok || err1 != nil || err2 != nil || err3 != nil || err4 != nil || from >= to {
		return v, fmt.Errorf("parse mappings: line %q", line)
	}
	v = VMA{Start: Addr(from), End: Addr(to), Offset: offset, Dev: fields[3], Inode: inode}
	for i, bit := range []Prot{ProtRead, ProtWrite, ProtExec} {
		if fields[1][i] != '-' {
			v.Prot |= bit
		}
	}
	v.Shared = fields[1][3] == 's'
	if len(fields) == 6 {
		v.Name = unescape(strings.TrimLeft(fields[5], " "))
	}
	return v, nil
}

// unescape undoes the kernel's only escape in maps: a newline as \012.
func unescape(s string) string { return strings.ReplaceAll(s, `\012`, "\n") }
