package imagefile

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"os"

	"torpor/host"
	"torpor/socket"
)

// Report is what Check found.
type Report struct {
	Version     int
	Bytes       int64
	DeadBytes   int64
	Connections int
	UnreadBytes int64
	Windows     int       // connections whose window was replaced
	Voids       int       // ranges that were damaged once
	Problems    []Problem // at most problemsMost
}

// Problem is something that Open would repair, or a record that can not be read.
type Problem struct {
	Offset int64
	Cause  string
}

func (p Problem) String() string { return fmt.Sprintf("entry at %d: %s", p.Offset, p.Cause) }

// problemsMost are enough to know that a file is bad.
const problemsMost = 1000

// Check reads a socket image without changing it. A file that no process has
// open and that was closed in order has no problems; one that is in use may seem
// to have some at its end. Errors are those of Open but for host.ErrRefused.
func Check(path string) (*Report, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = host.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("check socket image %s: %w", path, err)
	}
	defer f.Close()
	report, err := checkFile(f)
	if err != nil {
		return nil, fmt.Errorf("check socket image %s: %w", path, err)
	}
	return report, nil
}

func checkFile(f *os.File) (*Report, error) {
	report := &Report{Version: version}
	seed := maphash.MakeSeed()
	reader := newStore(f, header{}, seed)
	l, err := load(f, seed, func(h header, it *item) error {
		reader.header = h
		_, n := parseWord(it.head)
		body, err := reader.record(place{record: uint32(it.offset / unitBytes), bytes: n})
		if err != nil && !errors.Is(err, host.ErrCorrupt) {
			return err
		}
		spec, err := socket.Decode(body)
		if err != nil {
			report.problem(it.offset, err.Error())
		}
		report.UnreadBytes += int64(len(spec.Unread))
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, r := range l.repairs {
		report.problem(r.offset, r.cause)
	}
	report.Bytes, report.Connections, report.Voids = l.size, l.index.count, l.voids
	report.DeadBytes = l.end - entriesAt - l.used
	report.Windows = l.applied
	return report, nil
}

func (r *Report) problem(offset int64, cause string) {
	if len(r.Problems) < problemsMost {
		r.Problems = append(r.Problems, Problem{offset, cause})
	}
}
