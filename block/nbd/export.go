package nbd

import (
	"errors"
	"fmt"
	"sync/atomic"

	"torpor/block"
)

// Export is a device with a name.
type Export struct {
	// Name is what clients ask for, UTF-8, up to 4096 bytes. The empty name is
	// what clients get that ask for none; if nothing has it and there is one
	// export only, they get that.
	Name string
	// Description is for people.
	Description string
	// Device is used from many goroutines at once, and remains the caller's, who
	// closes it after the export was removed.
	Device block.Device
	// ReadOnly refuses changes; so does a device that is read-only.
	ReadOnly bool
}

// ExportStats are counts of an export since it was added.
type ExportStats struct {
	Connections int // now
	UnderWay    int // requests that are in the device now

	Reads, Writes, Flushes, Others uint64 // requests that the device was asked
	ReadBytes, WrittenBytes        uint64
	Errors                         uint64 // of the device
	Refused                        uint64 // requests that the device was not asked
}

// export is an Export that clients may use.
type export struct {
	Export
	view   *view
	counts counts
	conns  map[*conn]struct{} // guarded by the server's mutex
}

func newExport(e Export) (*export, error) {
	switch info := e.Device.Info(); {
	case !validText(e.Name):
		return nil, fmt.Errorf("add export: %w", errName)
	case !validText(e.Description):
		return nil, fmt.Errorf("add export %s: description is longer than 4096 bytes, has a NUL, or is no UTF-8", e.Name)
	case info.BlockBytes < 1 || info.BlockBytes > 1<<16 || info.BlockBytes&(info.BlockBytes-1) != 0:
		return nil, fmt.Errorf("add export %s: blocks of %d bytes: %w", e.Name, info.BlockBytes, errors.ErrUnsupported)
	}
	v, err := newView(e.Device)
	if err != nil {
		return nil, fmt.Errorf("add export %s: %w", e.Name, err)
	}
	return &export{Export: e, view: v, conns: map[*conn]struct{}{}}, nil
}

// counts are what ExportStats is made of.
type counts struct {
	underWay                       atomic.Int64
	reads, writes, flushes, others atomic.Uint64
	readBytes, writtenBytes        atomic.Uint64
	errors, refused                atomic.Uint64
}

func (c *counts) begin() { c.underWay.Add(1) }

func (c *counts) end(r *request) {
	c.underWay.Add(-1)
	if r.refused != 0 {
		return
	}
	switch r.command {
	case commandRead:
		c.reads.Add(1)
		c.readBytes.Add(uint64(r.lenBytes))
	case commandWrite:
		c.writes.Add(1)
		c.writtenBytes.Add(uint64(r.lenBytes))
	case commandFlush:
		c.flushes.Add(1)
	default:
		c.others.Add(1)
	}
}

func (c *counts) stats() ExportStats {
	return ExportStats{
		UnderWay: int(c.underWay.Load()),
		Reads:    c.reads.Load(), Writes: c.writes.Load(), Flushes: c.flushes.Load(), Others: c.others.Load(),
		ReadBytes: c.readBytes.Load(), WrittenBytes: c.writtenBytes.Load(),
		Errors: c.errors.Load(), Refused: c.refused.Load(),
	}
}
