package keeper

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"syscall"
)

// exitRecord is what init writes when the application ends; see DESIGN.md.
type exitRecord struct {
	pid    int
	status syscall.WaitStatus
}

const exitRecordBytes = 8

// signal is the number of the signal that ended it, or 0.
func (r exitRecord) signal() int {
	if r.status.Signaled() {
		return int(r.status.Signal())
	}
	return 0
}

// code is the exit code as a shell would say it.
func (r exitRecord) code() int {
	if n := r.signal(); n != 0 {
		return 128 + n
	}
	return r.status.ExitStatus()
}

func (r exitRecord) String() string {
	if n := r.signal(); n != 0 {
		return fmt.Sprintf("killed by signal %d (%s)", n, r.status.Signal())
	}
	switch r.code() {
	case 127:
		return "exited with 127: its program was not found"
	case 126:
		return "exited with 126: its program can not be executed"
	}
	return fmt.Sprintf("exited with %d", r.code())
}

// exitReader reads a container's exit FIFO.
type exitReader struct{ fifo *os.File }

// openExits opens the FIFO for reading and writing, so that it never ends.
func openExits(path string) (*exitReader, error) {
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open exit FIFO: %w", err)
	}
	return &exitReader{f}, nil
}

// read sends records until the context ends.
func (e *exitReader) read(ctx context.Context, to chan<- exitRecord) {
	stop := context.AfterFunc(ctx, func() { e.fifo.Close() })
	defer stop()
	for {
		var b [exitRecordBytes]byte
		if _, err := io.ReadFull(e.fifo, b[:]); err != nil {
			return
		}
		record := exitRecord{int(binary.LittleEndian.Uint32(b[:])), syscall.WaitStatus(binary.LittleEndian.Uint32(b[4:]))}
		select {
		case to <- record:
		case <-ctx.Done():
			return
		}
	}
}
