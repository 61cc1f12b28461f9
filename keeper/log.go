package keeper

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Rotation of a service's log: LOG, LOG.1, LOG.2.
const (
	logMostBytes = 10 << 20
	logKept      = 2
	lineMost     = 16 << 10 // a longer line is split
)

// LogLine is one line of a service's log file, as JSON.
type LogLine struct {
	Time   time.Time `json:"time"`
	Stream string    `json:"stream"` // stdout or stderr
	Text   string    `json:"text"`   // without the line's end
}

// logFile is a rotated file of LogLines, written by several copiers.
type logFile struct {
	path string

	mu    sync.Mutex
	file  *os.File
	bytes int64
}

func openLog(path string) (*logFile, error) {
	l := &logFile{path: path}
	return l, l.open()
}

func (l *logFile) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("open log: %w", err), f.Close())
	}
	l.file, l.bytes = f, info.Size()
	return nil
}

func (l *logFile) write(line LogLine) error {
	b, err := json.Marshal(line)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bytes > logMostBytes {
		if err := l.rotateLocked(); err != nil {
			return err
		}
	}
	n, err := l.file.Write(append(b, '\n'))
	l.bytes += int64(n)
	return err
}

func (l *logFile) rotateLocked() error {
	if err := l.file.Close(); err != nil {
		return err
	}
	for i := logKept; i > 0; i-- {
		from := l.path
		if i > 1 {
			from = fmt.Sprintf("%s.%d", l.path, i-1)
		}
		if err := os.Rename(from, fmt.Sprintf("%s.%d", l.path, i)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return l.open()
}

// Close closes the file after the last copier.
func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}

// logSource is one stream of a service.
type logSource struct {
	stream string
	from   *os.File
}

// logSources opens what the service writes to: two FIFOs, or the master of its
// terminal, which init keeps.
func (s *service) logSources() ([]logSource, error) {
	if s.target.TTY {
		fd, err := s.holder.TakeKept(0)
		if err != nil {
			return nil, err
		}
		if err := syscall.SetNonblock(fd, true); err != nil {
			return nil, err
		}
		return []logSource{{"stdout", os.NewFile(uintptr(fd), "terminal")}}, nil
	}
	var sources []logSource
	for _, stream := range []string{"stdout", "stderr"} {
		f, err := os.OpenFile(filepath.Join(s.target.RunDir, stream), os.O_RDWR|syscall.O_NONBLOCK, 0)
		if err != nil {
			return nil, fmt.Errorf("open %s of %s: %w", stream, s.target.ID, err)
		}
		sources = append(sources, logSource{stream, f})
	}
	return sources, nil
}

// copy writes the stream's lines to the log until the context ends.
func (s logSource) copy(ctx context.Context, to *logFile) {
	stop := context.AfterFunc(ctx, func() { s.from.Close() })
	defer stop()
	reader := bufio.NewReaderSize(s.from, lineMost)
	for {
		line, err := reader.ReadSlice('\n')
		if len(line) > 0 {
			// A log that can not be written (a full disk) must not stop the
			// service: its output is lost, as it would be on any full disk.
			_ = to.write(LogLine{Time: time.Now(), Stream: s.stream, Text: strings.TrimRight(string(line), "\r\n")})
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}
