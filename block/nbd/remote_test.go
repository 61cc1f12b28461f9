package nbd

import (
	"encoding/binary"
	"fmt"
	"testing"

	"torpor/block"
	"torpor/block/devicetest"
	"torpor/block/memory"
)

// TestSuite uses an export as a device, over several connections at once: with
// its own blocks, and with single bytes.
func TestSuite(t *testing.T) {
	for name, kinds := range map[string][]uint16{"blocks": {infoBlockSize}, "bytes": nil} {
		t.Run(name, func(t *testing.T) {
			devicetest.Run(t, func(t testing.TB) block.Device {
				d, err := memory.New(memory.Spec{SizeBytes: 8 * mib})
				if err != nil {
					t.Fatal(err)
				}
				_, socket := serve(t, ServerSpec{}, Export{Name: "a", Device: d})
				t.Cleanup(func() { d.Close() })
				info := d.Info()
				if kinds == nil {
					info.BlockBytes = 1
				}
				return newRemote(t, socket, kinds, info)
			}, devicetest.Options{Steps: 40})
		})
	}
}

// remote is an export as a device. What does not fit it is refused here: the
// server's tests send such requests themselves.
type remote struct {
	info    block.Info
	gate    block.Gate
	clients chan *client // idle
	all     []*client
}

func newRemote(t testing.TB, socket string, kinds []uint16, info block.Info) *remote {
	const connections = 4
	r := &remote{info: info, clients: make(chan *client, connections)}
	for range connections {
		c := transmitsAsking(t, socket, "a", true, kinds...)
		r.all = append(r.all, c)
		r.clients <- c
	}
	return r
}

func (r *remote) Info() block.Info { return r.info }

// do sends a request that is one of the device's, in pieces the protocol allows,
// and hands each reply to take.
func (r *remote) do(cmd command, flags uint16, span block.Range, data []byte, take func(reply)) error {
	if err := r.gate.Enter(); err != nil {
		return err
	}
	defer r.gate.Leave()
	if err := r.info.Check(span); err != nil {
		return err
	}
	c := <-r.clients
	defer func() { r.clients <- c }()
	cookie := c.send(cmd, flags, uint64(span.Start), uint32(span.LenBytes), data)
	for {
		got := c.receive()
		if got.cookie != cookie || got.err != 0 {
			return fmt.Errorf("command %d, %v: reply to %d, error %d: %s", cmd, span, got.cookie, got.err, got.data)
		}
		take(got)
		if !got.chunk || got.flags&chunkDone != 0 {
			return nil
		}
	}
}

func ignore(reply) {}

func flagsOfChange(flags block.Flags) (f uint16) {
	if flags&block.FUA != 0 {
		f |= flagFUA
	}
	if flags&block.KeepAllocated != 0 {
		f |= flagNoHole
	}
	if flags&block.FastOnly != 0 {
		f |= flagFastZero
	}
	return f
}

func (r *remote) ReadAt(p []byte, off block.Offset) error {
	return r.do(commandRead, 0, block.Range{Start: off, LenBytes: int64(len(p))}, nil, func(got reply) {
		switch got.kind {
		case chunkOffsetHole:
			at := binary.BigEndian.Uint64(got.data) - uint64(off)
			clear(p[at:][:binary.BigEndian.Uint32(got.data[8:])])
		case chunkOffsetData:
			copy(p[binary.BigEndian.Uint64(got.data)-uint64(off):], got.data[8:])
		}
	})
}

func (r *remote) WriteAt(p []byte, off block.Offset, flags block.Flags) error {
	return r.do(commandWrite, flagsOfChange(flags), block.Range{Start: off, LenBytes: int64(len(p))}, p, ignore)
}

func (r *remote) Zero(span block.Range, flags block.Flags) error {
	return r.do(commandWriteZeroes, flagsOfChange(flags), span, nil, ignore)
}

func (r *remote) Discard(span block.Range, flags block.Flags) error {
	return r.do(commandTrim, flagsOfChange(flags)&flagFUA, span, nil, ignore)
}

func (r *remote) Flush() error { return r.do(commandFlush, 0, block.Range{}, nil, ignore) }

func (r *remote) Status(span block.Range) (extents []block.Extent, err error) {
	if span.LenBytes == 0 {
		return nil, r.do(commandFlush, 0, block.Range{}, nil, ignore) // the protocol has no empty one
	}
	start := span.Start
	err = r.do(commandBlockStatus, 0, span, nil, func(got reply) {
		for b := got.data[4:]; len(b) > 0; b = b[8:] {
			kind := map[uint32]block.Kind{0: block.Data, stateZero: block.Zero, stateHole | stateZero: block.Hole}[binary.BigEndian.Uint32(b[4:])]
			piece := block.Range{Start: start, LenBytes: int64(binary.BigEndian.Uint32(b))}
			extents, start = block.AppendExtent(extents, piece, kind), piece.End()
		}
	})
	return extents, err
}

func (r *remote) Close() error {
	if err := r.gate.Close(); err != nil {
		return err
	}
	for _, c := range r.all {
		c.send(commandDisconnect, 0, 0, 0, nil)
		c.hungUp()
	}
	return nil
}
