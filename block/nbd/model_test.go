package nbd

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// TestModel has several clients send random requests, many at once, to a device
// that hangs sometimes, while the server is handed over again and again; each
// compares what it reads with what it wrote to its part of the device.
func TestModel(t *testing.T) {
	const clients, partBytes = 4, 4 * mib
	d := newRAM(clients*partBytes, 4096)
	d.wait = func(string) error {
		if rand.IntN(50) == 0 {
			time.Sleep(time.Duration(rand.IntN(int(5 * patience))))
		}
		return nil
	}
	export := Export{Name: "a", Device: d}
	s, socket := serve(t, ServerSpec{Workers: 4}, export)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var running sync.WaitGroup
	for i := range clients {
		m := &modelClient{
			client: transmits(t, socket, "a", i%2 == 0), structured: i%2 == 0, random: rand.New(rand.NewPCG(seed, uint64(i))),
			first: uint64(i) * partBytes, part: make([]byte, partBytes), expected: map[uint64]expectation{},
		}
		running.Go(func() { m.run(2000) })
	}
	done := make(chan struct{})
	go func() { running.Wait(); close(done) }()
	for {
		select {
		case <-done:
			return
		case <-time.After(30 * time.Millisecond):
			s = passOn(t, s, ServerSpec{Workers: 4}, export)
		}
	}
}

// modelClient keeps what its part of the device should hold. Requests that are
// under way at the same time do not overlap, since their order is open.
type modelClient struct {
	*client
	structured bool
	random     *rand.Rand
	first      uint64
	part       []byte
	expected   map[uint64]expectation
}

type expectation struct {
	from, to int
	read     []byte // nil: no read
}

func (m *modelClient) run(requests int) {
	for sent := 0; (sent < requests || len(m.expected) > 0) && !m.t.Failed(); {
		if sent < requests && len(m.expected) < 16 && m.random.IntN(3) > 0 {
			m.request()
			sent++
		} else if len(m.expected) > 0 {
			m.answer()
		}
	}
}

func (m *modelClient) request() {
	from := m.random.IntN(len(m.part)/4096) * 4096
	to := min(from+(1+m.random.IntN(40))*4096, len(m.part))
	for _, e := range m.expected {
		if from < e.to && e.from < to {
			return
		}
	}
	e := expectation{from: from, to: to}
	cmd, flags, data := commandRead, uint16(0), []byte(nil)
	switch m.random.IntN(4) {
	case 0, 1:
		cmd, flags = commandWrite, uint16(m.random.IntN(2))*flagFUA
		data = bytes.Repeat([]byte{byte(1 + m.random.IntN(255))}, to-from)
		copy(m.part[from:], data)
	case 2:
		cmd = commandWriteZeroes
		clear(m.part[from:to])
	default:
		e.read = bytes.Clone(m.part[from:to])
	}
	m.expected[m.send(cmd, flags, m.first+uint64(from), uint32(to-from), data)] = e
}

// answer reads the answer to some request, in one chunk or several: their heads
// carry offsets, and chunks of one answer are not mixed with others.
func (m *modelClient) answer() {
	r := m.receive()
	e, known := m.expected[r.cookie]
	if !known || r.err != 0 {
		m.t.Errorf("reply %+v, known: %v", r, known)
		return
	}
	delete(m.expected, r.cookie)
	var got []byte
	switch {
	case e.read == nil:
		return
	case !m.structured:
		got = m.read(e.to - e.from)
	default:
		got = m.assemble(r, e)
	}
	if !bytes.Equal(got, e.read) {
		m.t.Errorf("read of %d to %d: wrong content", e.from, e.to)
	}
}

func (m *modelClient) assemble(r reply, e expectation) []byte {
	got := bytes.Repeat([]byte{0xaa}, e.to-e.from)
	for {
		at := int(binary.BigEndian.Uint64(r.data)-m.first) - e.from
		if r.kind == chunkOffsetHole {
			clear(got[at : at+int(binary.BigEndian.Uint32(r.data[8:]))])
		} else {
			copy(got[at:], r.data[8:])
		}
		if r.flags&chunkDone != 0 {
			return got
		}
		r = m.receive()
	}
}
