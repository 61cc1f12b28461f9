package daemon

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"torpor/host"
	"torpor/keeper"
)

// LogOptions say which lines of a log are wanted.
type LogOptions struct {
	Tail   int       // the last lines; negative: all
	Since  time.Time // zero: from the beginning
	Follow bool
}

// NamedLine is a line of a log and whose it is.
type NamedLine struct {
	Container host.ContainerID `json:"container"`
	keeper.LogLine
}

// followEvery is how often a followed file is looked at.
const followEvery = 100 * time.Millisecond

// readLog calls f for the lines of a container's log.
func readLog(ctx context.Context, path string, o LogOptions, f func(keeper.LogLine) error) error {
	var kept []keeper.LogLine
	for i := 2; i > 0; i-- {
		old, _, err := readLines(fmt.Sprintf("%s.%d", path, i), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		kept = append(kept, old...)
	}
	lines, offset, err := readLines(path, 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	kept = append(kept, lines...)
	if o.Tail >= 0 && len(kept) > o.Tail {
		kept = kept[len(kept)-o.Tail:]
	}
	for _, line := range kept {
		if line.Time.Before(o.Since) {
			continue
		}
		if err := f(line); err != nil {
			return err
		}
	}
	for o.Follow && ctx.Err() == nil {
		sleepContext(ctx, followEvery)
		if info, err := os.Stat(path); err == nil && info.Size() < offset {
			offset = 0 // rotated
		}
		var fresh []keeper.LogLine
		if fresh, offset, err = readLines(path, offset); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		for _, line := range fresh {
			if err := f(line); err != nil {
				return err
			}
		}
	}
	return nil
}

// readLines reads the whole lines from an offset on and returns the offset
// behind them. A line that is not JSON is shown as it is.
func readLines(path string, offset int64) ([]keeper.LogLine, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, offset, err
	}
	defer f.Close()
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, offset, err
	}
	var lines []keeper.LogLine
	reader := bufio.NewReader(f)
	for {
		b, err := reader.ReadBytes('\n')
		if err != nil {
			return lines, offset, nil // a line that is still being written
		}
		offset += int64(len(b))
		var line keeper.LogLine
		if json.Unmarshal(b, &line) != nil {
			line = keeper.LogLine{Stream: "stdout", Text: string(b)}
		}
		lines = append(lines, line)
	}
}

func (u *unit) logPath() string { return filepath.Join(u.dir(), "log") }
