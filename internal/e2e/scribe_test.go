package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// scribe writes files, fsyncs, and remembers what was acknowledged, as a database
// does. Each of its workers ends with the first error.
type scribe struct {
	dir     string
	workers []*scribeWorker
	stop    chan struct{}
	running sync.WaitGroup
	doomed  atomic.Bool // from now on nothing may be acknowledged
}

// scribeWorker does one kind of work, step by step.
type scribeWorker struct {
	name  string
	begin func(path string) error            // makes the file
	step  func(path string, step int) error  // steps count from 1
	check func(path string, acked int) error // that all acknowledged steps are there

	acked atomic.Int64
	lied  atomic.Bool // a step was acknowledged that began after the doom
	err   error       // that ended it; valid after the scribe's end
}

// beginScribe makes the files in a new directory, and starts.
func beginScribe(dir string) (*scribe, error) {
	s := &scribe{dir: dir, stop: make(chan struct{})}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	for i := range 2 {
		s.workers = append(s.workers,
			&scribeWorker{name: fmt.Sprintf("log%d", i), begin: beginEmpty, step: appendStep, check: checkAppended},
			&scribeWorker{name: fmt.Sprintf("blocks%d", i), begin: beginBlocks, step: blockStep, check: checkBlocks})
	}
	s.workers = append(s.workers, &scribeWorker{name: "whole", begin: beginEmpty, step: replaceStep, check: checkReplaced})
	for _, w := range s.workers {
		if err := w.begin(filepath.Join(dir, w.name)); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(syncPath(dir), syncPath(filepath.Dir(dir))); err != nil {
		return nil, err
	}
	for _, w := range s.workers {
		s.running.Go(func() { s.work(w) })
	}
	return s, nil
}

func (s *scribe) work(w *scribeWorker) {
	path := filepath.Join(s.dir, w.name)
	for step := 1; ; step++ {
		select {
		case <-s.stop:
			return
		default:
		}
		doomed := s.doomed.Load()
		if w.err = w.step(path, step); w.err != nil {
			return
		}
		w.acked.Store(int64(step))
		if doomed {
			w.lied.Store(true)
			return
		}
	}
}

// ackedSteps is how many steps there were, of all workers.
func (s *scribe) ackedSteps() int {
	n := 0
	for _, w := range s.workers {
		n += int(w.acked.Load())
	}
	return n
}

// end stops the workers; it returns the errors that some ended with before.
func (s *scribe) end() error {
	close(s.stop)
	s.running.Wait()
	var errs []error
	for _, w := range s.workers {
		errs = append(errs, w.err)
	}
	return errors.Join(errs...)
}

// awaitErrors waits until all workers have ended by themselves.
func (s *scribe) awaitErrors() error {
	s.running.Wait()
	var errs []error
	for _, w := range s.workers {
		if w.lied.Load() {
			errs = append(errs, fmt.Errorf("%s: step %d was acknowledged without a device", w.name, w.acked.Load()))
		}
	}
	return errors.Join(errs...)
}

// check reads all files and compares them with what was acknowledged.
func (s *scribe) check() error {
	var errs []error
	for _, w := range s.workers {
		if err := w.check(filepath.Join(s.dir, w.name), int(w.acked.Load())); err != nil {
			errs = append(errs, fmt.Errorf("%s, of which %d steps were acknowledged: %w", w.name, w.acked.Load(), err))
		}
	}
	return errors.Join(errs...)
}

// content is what a step of a file writes; of no two of them it is the same.
func content(path string, step, lenBytes int) []byte {
	h := fnv.New64a()
	h.Write([]byte(path))
	random := rand.New(rand.NewPCG(h.Sum64(), uint64(step)))
	b := make([]byte, (lenBytes+7)/8*8)
	for at := 0; at < len(b); at += 8 {
		binary.LittleEndian.PutUint64(b[at:], random.Uint64())
	}
	return b[:lenBytes]
}

// stepBytes is how much a step writes.
func stepBytes(step int) int { return 1 + step*7919%20011 }

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func beginEmpty(path string) error {
	return errors.Join(os.WriteFile(path, nil, 0o644), syncPath(path))
}

// writeSynced writes into a file that there is.
func writeSynced(path string, flags int, b []byte, at int64) error {
	f, err := os.OpenFile(path, flags, 0o644)
	if err != nil {
		return err
	}
	if flags&os.O_APPEND != 0 {
		_, err = f.Write(b)
	} else {
		_, err = f.WriteAt(b, at)
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// appendStep makes the file longer.
func appendStep(path string, step int) error {
	return writeSynced(path, os.O_WRONLY|os.O_APPEND, content(path, step, stepBytes(step)), 0)
}

// checkAppended wants all that was acknowledged; what follows may be of the
// step that was under way, or zeros where it was not written yet.
func checkAppended(path string, acked int) error {
	got, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var want []byte
	for step := 1; step <= acked; step++ {
		want = append(want, content(path, step, stepBytes(step))...)
	}
	if len(got) < len(want) {
		return fmt.Errorf("it has %d bytes of %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			return fmt.Errorf("byte %d of %d is wrong", i, len(want))
		}
	}
	rest, next := got[len(want):], content(path, acked+1, stepBytes(acked+1))
	if len(rest) > len(next) {
		return fmt.Errorf("%d bytes follow that nobody wrote", len(rest))
	}
	for i := range rest {
		if rest[i] != next[i] && rest[i] != 0 {
			return fmt.Errorf("byte %d after the end is of nothing that was written", i)
		}
	}
	return nil
}

// A file of blocks is overwritten in place, each block by one step of several.
const scribeBlocks, scribeBlockBytes = 48, 4096

func beginBlocks(path string) error {
	return errors.Join(os.WriteFile(path, make([]byte, scribeBlocks*scribeBlockBytes), 0o644), syncPath(path))
}

// blockOf is where a step writes.
func blockOf(step int) int { return step * 29 % scribeBlocks }

func blockStep(path string, step int) error {
	return writeSynced(path, os.O_WRONLY, content(path, step, scribeBlockBytes), int64(blockOf(step))*scribeBlockBytes)
}

// checkBlocks wants in each block its newest step as a whole; the step that was
// under way may be there or not.
func checkBlocks(path string, acked int) error {
	got, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if len(got) != scribeBlocks*scribeBlockBytes {
		return fmt.Errorf("it has %d bytes", len(got))
	}
	newest := map[int]int{}
	for step := 1; step <= acked; step++ {
		newest[blockOf(step)] = step
	}
	for i := range scribeBlocks {
		block := got[i*scribeBlockBytes:][:scribeBlockBytes]
		want := make([]byte, scribeBlockBytes)
		if step := newest[i]; step > 0 {
			want = content(path, step, scribeBlockBytes)
		}
		underWay := blockOf(acked+1) == i && bytes.Equal(block, content(path, acked+1, scribeBlockBytes))
		if !bytes.Equal(block, want) && !underWay {
			return fmt.Errorf("block %d does not hold step %d", i, newest[i])
		}
	}
	return nil
}

// replaceStep writes a file beside it, and renames that. The file is synced once
// more behind its directory: ext4 (Linux 6.18) says that a directory is synced when
// its journal was given up at that moment, as jbd2_journal_force_commit finds nothing
// to commit then. Of files it does not say that.
func replaceStep(path string, step int) error {
	fresh := path + ".new"
	if err := os.WriteFile(fresh, content(path, step, stepBytes(step)), 0o644); err != nil {
		return err
	}
	if err := syncPath(fresh); err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		return err
	}
	return errors.Join(syncPath(filepath.Dir(path)), syncPath(path))
}

// checkReplaced wants the file of the newest step as a whole, or that of the step
// that was under way.
func checkReplaced(path string, acked int) error {
	got, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("it is gone")
	}
	if err != nil {
		return err
	}
	for step := acked; step <= acked+1; step++ {
		want := []byte{}
		if step > 0 {
			want = content(path, step, stepBytes(step))
		}
		if bytes.Equal(got, want) {
			return nil
		}
	}
	return fmt.Errorf("its %d bytes are of no step", len(got))
}
