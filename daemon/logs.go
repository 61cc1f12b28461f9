package daemon

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"torpor/host"
	"torpor/keeper"
	"torpor/wire"
)

// LogOptions say which lines of a log are wanted.
type LogOptions struct {
	Tail   int       // the last lines of each container; negative: all
	Since  time.Time // zero: from the beginning
	Follow bool
}

// NamedLine is a line of a log and whose it is.
type NamedLine struct {
	Container host.ContainerID `json:"container"`
	keeper.LogLine
}

// logPath is where the keeper writes what a container writes.
func logPath(serviceDir string) string { return filepath.Join(serviceDir, "log") }

// followEvery is how often a followed file is looked at.
const followEvery = 100 * time.Millisecond

// logReader reads a container's log, and goes on where it stopped. Rotated
// files are LOG.1, LOG.2, the oldest last.
type logReader struct {
	path   string
	info   os.FileInfo // of the file that offset is about
	offset int64
}

// history returns the lines that are there.
func (l *logReader) history(o LogOptions) ([]keeper.LogLine, error) {
	old, err := rotated(l.path)
	if err != nil {
		return nil, err
	}
	var lines []keeper.LogLine
	for _, path := range append(old, l.path) {
		more, err := l.read(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		lines = append(lines, more...)
	}
	lines = slices.DeleteFunc(lines, func(line keeper.LogLine) bool { return line.Time.Before(o.Since) })
	if o.Tail >= 0 && len(lines) > o.Tail {
		lines = lines[len(lines)-o.Tail:]
	}
	return lines, nil
}

// rotated lists older files of a log, the oldest first.
func rotated(path string) ([]string, error) {
	files, err := filepath.Glob(path + ".[0-9]*")
	if err != nil {
		return nil, err
	}
	number := func(file string) int {
		n, _ := strconv.Atoi(strings.TrimPrefix(file, path+"."))
		return n
	}
	slices.SortFunc(files, func(a, b string) int { return cmp.Compare(number(b), number(a)) })
	return files, nil
}

// fresh returns the lines written since the last call. What was written to a
// file before it was rotated comes first.
func (l *logReader) fresh() ([]keeper.LogLine, error) {
	var lines []keeper.LogLine
	if info, err := os.Stat(l.path); err == nil && l.info != nil && !os.SameFile(info, l.info) {
		if before, err := os.Stat(l.path + ".1"); err == nil && os.SameFile(before, l.info) {
			rest, err := l.read(l.path + ".1")
			if err != nil {
				return nil, err
			}
			lines = rest
		}
		l.info = nil
	}
	more, err := l.read(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return append(lines, more...), err
}

// read returns the whole lines of a file: those behind the offset, if it is
// the file that was read last. A line that is not JSON is shown as it is.
func (l *logReader) read(path string) ([]keeper.LogLine, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if l.info == nil || !os.SameFile(info, l.info) || info.Size() < l.offset {
		l.offset = 0
	}
	l.info = info
	if _, err := f.Seek(l.offset, io.SeekStart); err != nil {
		return nil, err
	}
	var lines []keeper.LogLine
	for reader := bufio.NewReader(f); ; {
		b, err := reader.ReadBytes('\n')
		if err != nil {
			return lines, nil // a line that is still being written
		}
		l.offset += int64(len(b))
		var line keeper.LogLine
		if json.Unmarshal(b, &line) != nil {
			line = keeper.LogLine{Time: info.ModTime(), Stream: "stdout", Text: strings.TrimRight(string(b), "\n")}
		}
		lines = append(lines, line)
	}
}

// logs answers with lines of the named containers as JSON lines: those that
// are there, by time, and then, if asked, new ones.
func (d *Daemon) logs(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	o := LogOptions{Tail: -1, Follow: q.Get("follow") != ""}
	if n, err := strconv.Atoi(q.Get("tail")); err == nil {
		o.Tail = n
	}
	if t, err := time.Parse(time.RFC3339Nano, q.Get("since")); err == nil {
		o.Since = t
	}
	readers := map[host.ContainerID]*logReader{}
	var all []NamedLine
	for _, id := range q["id"] {
		u := d.unit(host.ContainerID(id))
		if u == nil {
			wire.Answer(w, nil, fmt.Errorf("find service %s: %w", id, host.ErrNotFound))
			return
		}
		readers[u.id] = &logReader{path: logPath(u.dir())}
		lines, err := readers[u.id].history(o)
		if err != nil {
			wire.Answer(w, nil, fmt.Errorf("read log of %s: %w", id, err))
			return
		}
		for _, line := range lines {
			all = append(all, NamedLine{u.id, line})
		}
	}
	slices.SortStableFunc(all, func(a, b NamedLine) int { return a.Time.Compare(b.Time) })
	w.Header().Set("Content-Type", "application/jsonl")
	w.WriteHeader(http.StatusOK)
	out := &lineWriter{encoder: json.NewEncoder(w), controller: http.NewResponseController(w)}
	out.write(all)
	if o.Follow {
		out.follow(r.Context(), readers)
	}
}

// lineWriter sends lines to a client.
type lineWriter struct {
	mu         sync.Mutex
	encoder    *json.Encoder
	controller *http.ResponseController
}

func (l *lineWriter) write(lines []NamedLine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range lines {
		_ = l.encoder.Encode(line) // the request's context tells when the client is gone
	}
	_ = l.controller.Flush()
}

// follow sends what is written until the context ends.
func (l *lineWriter) follow(ctx context.Context, readers map[host.ContainerID]*logReader) {
	var following sync.WaitGroup
	for id, reader := range readers {
		following.Go(func() {
			for ctx.Err() == nil {
				lines, err := reader.fresh()
				if err != nil {
					return
				}
				var named []NamedLine
				for _, line := range lines {
					named = append(named, NamedLine{id, line})
				}
				if len(named) > 0 {
					l.write(named)
				}
				sleepContext(ctx, followEvery)
			}
		})
	}
	following.Wait()
}
