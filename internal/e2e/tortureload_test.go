package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load is fio in rounds: each writes a range of the volume in random order and
// reads it back, to the end. A round is never cut off.
type load struct {
	t       *testing.T
	name    string
	args    []string
	ended   atomic.Int64 // rounds
	stop    atomic.Bool
	running sync.WaitGroup

	// valid after the end
	err     error
	slowest time.Duration // of all requests
}

// loadBytes is what a round writes. The second load writes behind the first.
const loadBytes = 6 << 20

// begin starts rounds on a target: --filename or --uri with its engine.
func beginLoad(t *testing.T, name string, at int64, target ...string) *load {
	l := &load{t: t, name: name, args: append(target, "--rw=randwrite", "--bs=16k", "--iodepth=8",
		"--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--fsync=64", "--end_fsync=1",
		fmt.Sprintf("--size=%d", int64(loadBytes)), fmt.Sprintf("--offset=%d", at), "--name=load", "--output-format=json")}
	l.running.Go(func() {
		for round := 1; !l.stop.Load() && l.err == nil; round++ {
			l.err = l.round(round, false)
			l.ended.Add(1)
		}
	})
	t.Cleanup(func() {
		l.stop.Store(true)
		l.running.Wait()
	})
	return l
}

// onDevice is the target of a block device, and onNBD that of an NBD server.
func onDevice(path string) []string {
	return []string{"--filename=" + path, "--ioengine=libaio", "--direct=1"}
}

func onNBD(uri string) []string { return []string{"--ioengine=nbd", "--uri=" + uri} }

// round writes and reads, or only reads what a round had written.
func (l *load) round(round int, only bool) error {
	args := append([]string{fmt.Sprintf("--randseed=%d", round)}, l.args...)
	if only {
		args = append(args, "--verify_only")
	}
	cmd := exec.Command("fio", args...)
	cmd.Dir = l.t.TempDir()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s, round %d: fio: %w\n%s\n%s", l.name, round, err, &errs, &out)
	}
	type latencies struct {
		TotalIOs int64 `json:"total_ios"`
		Latency  struct {
			MaxNS int64 `json:"max"`
		} `json:"lat_ns"`
	}
	var said struct {
		Jobs []struct {
			Error             int
			Read, Write, Sync latencies
		}
	}
	text := out.String()
	if err := json.Unmarshal([]byte(text[max(0, strings.Index(text, "{")):]), &said); err != nil || len(said.Jobs) != 1 {
		return fmt.Errorf("%s: read fio's answer: %w\n%s", l.name, err, text)
	}
	job := said.Jobs[0]
	if job.Error != 0 || job.Read.TotalIOs == 0 || !only && job.Write.TotalIOs == 0 {
		return fmt.Errorf("%s, round %d: fio: %s", l.name, round, text)
	}
	l.slowest = max(l.slowest, time.Duration(job.Read.Latency.MaxNS), time.Duration(job.Write.Latency.MaxNS), time.Duration(job.Sync.Latency.MaxNS))
	return nil
}

// goesOn waits until a round that began after the call has ended.
func (l *load) goesOn(m *machine) {
	m.t.Helper()
	before := l.ended.Load()
	m.eventually(l.name+" goes on", func() error {
		if now := l.ended.Load(); now < before+2 {
			return fmt.Errorf("%d rounds have ended", now)
		}
		return nil
	})
}

// end lets the last round end. All must have been without an error.
func (l *load) end() {
	l.t.Helper()
	l.stop.Store(true)
	l.running.Wait()
	if l.err != nil {
		l.t.Error(l.err)
	}
	l.t.Logf("%s: %d rounds, slowest request %s", l.name, l.ended.Load(), l.slowest.Round(time.Millisecond))
}
