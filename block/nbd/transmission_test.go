package nbd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"torpor/block"
)

func TestRequests(t *testing.T) {
	d := newRAM(mib, 4096)
	_, socket := serve(t, ServerSpec{}, Export{Name: "a", Device: d}, Export{Name: "r", Device: d, ReadOnly: true})
	page := bytes.Repeat([]byte{7}, 4096)
	for _, structured := range []bool{false, true} {
		for _, c := range []struct {
			what, export string
			cmd          command
			flags        uint16
			offset       uint64
			lenBytes     uint32
			data         []byte
			want         errno
		}{
			{"write", "a", commandWrite, 0, 4096, 4096, page, 0},
			{"write with FUA", "a", commandWrite, flagFUA, 4096, 4096, page, 0},
			{"write nothing", "a", commandWrite, 0, 0, 0, nil, 0},
			{"write beyond", "a", commandWrite, 0, mib, 4096, page, errnoNoSpace},
			{"write around", "a", commandWrite, 0, 1<<64 - 4096, 4096, page, errnoNoSpace},
			{"write unaligned", "a", commandWrite, 0, 4096, 512, page[:512], errnoInvalid},
			{"write with flags of others", "a", commandWrite, flagDF, 4096, 4096, page, errnoInvalid},
			{"write read-only", "r", commandWrite, 0, 4096, 4096, page, errnoPerm},
			{"write too much", "a", commandWrite, 0, 0, maxPayloadBytes + 4096, make([]byte, maxPayloadBytes+4096), errnoInvalid},
			{"read beyond", "a", commandRead, 0, mib - 4096, 8192, nil, errnoInvalid},
			{"read unaligned", "a", commandRead, 0, 1, 4096, nil, errnoInvalid},
			{"flush", "a", commandFlush, 0, 0, 0, nil, 0},
			{"flush read-only", "r", commandFlush, 0, 0, 0, nil, 0},
			{"flush a range", "a", commandFlush, 0, 0, 4096, nil, errnoInvalid},
			{"trim", "a", commandTrim, flagFUA, 4096, 8192, nil, 0},
			{"trim unaligned", "a", commandTrim, 0, 4096 + 512, 8192, nil, 0},
			{"trim less than a block", "a", commandTrim, 0, 4096 + 512, 512, nil, 0},
			{"trim beyond", "a", commandTrim, 0, mib, 4096, nil, errnoInvalid},
			{"trim read-only", "r", commandTrim, 0, 4096, 8192, nil, errnoPerm},
			{"zero", "a", commandWriteZeroes, flagFUA | flagNoHole, 4096, 8192, nil, 0},
			{"zero fast", "a", commandWriteZeroes, flagFastZero, 4096, 8192, nil, 0},
			{"zero fast, which is slow", "a", commandWriteZeroes, flagFastZero | flagNoHole, 4096, 8192, nil, errnoNotSup},
			{"zero beyond", "a", commandWriteZeroes, 0, 0, mib + 4096, nil, errnoNoSpace},
			{"zero read-only", "r", commandWriteZeroes, 0, 0, 4096, nil, errnoPerm},
			{"cache", "a", commandCache, 0, 0, mib, nil, 0},
			{"cache with flags", "a", commandCache, flagNoHole, 0, mib, nil, errnoInvalid},
			{"status of nothing", "a", commandBlockStatus, 0, 0, 0, nil, errnoInvalid},
			{"resize", "a", 8, 0, 0, mib, nil, errnoInvalid},
			{"unknown", "a", 1000, 0, 0, 0, nil, errnoInvalid},
		} {
			t.Run(fmt.Sprint(c.what, " ", structured), func(t *testing.T) {
				client := transmits(t, socket, c.export, structured)
				r := client.do(c.cmd, c.flags, c.offset, c.lenBytes, c.data)
				if r.err != c.want {
					t.Errorf("error %d, want %d: %s", r.err, c.want, r.data)
				}
				if r.chunk && (r.flags != chunkDone || !structured) {
					t.Errorf("chunk %+v", r)
				}
				client.do(commandFlush, 0, 0, 0, nil) // the connection goes on
				client.send(commandDisconnect, 0, 0, 0, nil)
				client.hungUp()
			})
		}
	}
	if d.count("fua") != 2 {
		t.Errorf("%d writes with FUA, want 2", d.count("fua"))
	}
}

// TestLongReads wants reads over the limit to be refused, before memory is taken.
func TestLongReads(t *testing.T) {
	_, socket := serve(t, ServerSpec{}, Export{Name: "a", Device: newRAM(64*mib, 4096)})
	if r := transmits(t, socket, "a", true).do(commandRead, 0, 0, 64*mib, nil); r.err != errnoOverflow {
		t.Errorf("structured: %+v", r)
	}
	if r := transmits(t, socket, "a", false).do(commandRead, 0, 0, 64*mib, nil); r.err != errnoInvalid {
		t.Errorf("simple: %+v", r)
	}
	c := transmits(t, socket, "a", false)
	if got := c.readAt(0, maxPayloadBytes); len(got) != maxPayloadBytes {
		t.Error("longest read")
	}
}

func TestHostileRequests(t *testing.T) {
	_, socket := serve(t, ServerSpec{}, Export{Name: "a", Device: newRAM(mib, 4096)})
	wrong := transmits(t, socket, "a", false)
	wrong.write(make([]byte, requestBytes))
	wrong.hungUp()
	long := transmits(t, socket, "a", false)
	long.send(commandWrite, 0, 0, maxDroppedPayloadBytes+1, nil)
	long.hungUp()
	half := transmits(t, socket, "a", false)
	half.send(commandWrite, 0, 0, 4096, make([]byte, 1000))
	half.conn.Close()
	transmits(t, socket, "a", false).readAt(0, 4096)
}

// TestTrimsAreCut wants trims of parts of blocks to leave these alone.
func TestTrimsAreCut(t *testing.T) {
	d := newRAM(mib, 4096)
	_, socket := serve(t, ServerSpec{}, Export{Name: "a", Device: d})
	c := transmits(t, socket, "a", false)
	for _, test := range []struct{ offset, lenBytes, from, to int }{
		{4096, 8192, 4096, 12288}, {4095, 8194, 4096, 12288}, {4097, 8191, 8192, 12288}, {4096, 8191, 4096, 8192}, {4097, 4094, 0, 0}, {1, 8190, 4096, 4096},
	} {
		want := bytes.Repeat([]byte{9}, 16384)
		c.do(commandWrite, 0, 0, 16384, want)
		if r := c.do(commandTrim, 0, uint64(test.offset), uint32(test.lenBytes), nil); r.err != 0 {
			t.Errorf("trim %d+%d: %+v", test.offset, test.lenBytes, r)
		}
		clear(want[test.from:test.to])
		if got := c.readAt(0, 16384); !bytes.Equal(got, want) {
			t.Errorf("trim %d+%d: wrong content", test.offset, test.lenBytes)
		}
	}
}

// chunks are the pieces of a structured read.
func (c *client) chunks() (got []string, content []byte) {
	for {
		r := c.receive()
		offset := binary.BigEndian.Uint64(r.data)
		switch r.kind {
		case chunkOffsetData:
			got = append(got, fmt.Sprintf("data %d+%d", offset, len(r.data)-8))
			content = append(content, r.data[8:]...)
		case chunkOffsetHole:
			n := binary.BigEndian.Uint32(r.data[8:])
			got = append(got, fmt.Sprintf("hole %d+%d", offset, n))
			content = append(content, make([]byte, n)...)
		default:
			c.t.Fatalf("chunk %+v", r)
		}
		if r.flags&chunkDone != 0 {
			return got, content
		}
	}
}

func TestStructuredReads(t *testing.T) {
	d := newRAM(mib, 4096)
	_, socket := serve(t, ServerSpec{}, Export{Name: "a", Device: d})
	for _, at := range []block.Offset{128 << 10, 136 << 10, 260 << 10} { // a small hole between two
		if err := d.WriteAt(bytes.Repeat([]byte{byte(at >> 12)}, 4096), at, 0); err != nil {
			t.Fatal(err)
		}
	}
	c := transmits(t, socket, "a", true)
	for _, test := range []struct {
		flags            uint16
		offset, lenBytes int
		want             string
	}{
		{0, 0, 4096, "[data 0+4096]"},
		{0, 0, 65536, "[hole 0+65536]"},
		{0, 65536, 65536 + 12288, "[hole 65536+65536 data 131072+12288]"},
		{0, 131072, 262144, "[data 131072+12288 hole 143360+122880 data 266240+4096 hole 270336+122880]"},
		{flagDF, 65536, 262144, "[data 65536+262144]"},
	} {
		c.send(commandRead, test.flags, uint64(test.offset), uint32(test.lenBytes), nil)
		got, content := c.chunks()
		if fmt.Sprint(got) != test.want {
			t.Errorf("read %d+%d: %v, want %s", test.offset, test.lenBytes, got, test.want)
		}
		if !bytes.Equal(content, d.memory[test.offset:test.offset+test.lenBytes]) {
			t.Errorf("read %d+%d: wrong content", test.offset, test.lenBytes)
		}
	}
	if r := c.do(commandRead, 0, 0, 0, nil); r.kind != chunkNone || r.flags != chunkDone {
		t.Errorf("read of nothing: %+v", r)
	}
}

func TestBlockStatus(t *testing.T) {
	d := newRAM(mib, 4096)
	_, socket := serve(t, ServerSpec{}, Export{Name: "a", Device: d})
	if err := d.WriteAt(make([]byte, 8192), 4096, 0); err != nil {
		t.Fatal(err)
	}
	c := transmits(t, socket, "a", true)
	for _, test := range []struct {
		flags            uint16
		offset, lenBytes int
		want             []uint32
	}{
		{0, 0, mib, []uint32{4096, 3, 8192, 0, mib - 12288, 3}},
		{flagReqOne, 4096, 4096, []uint32{4096, 0}},
		{flagReqOne, 0, mib, []uint32{4096, 3}},
	} {
		r := c.do(commandBlockStatus, test.flags, uint64(test.offset), uint32(test.lenBytes), nil)
		want := binary.BigEndian.AppendUint32(nil, metaAllocationID)
		for _, v := range test.want {
			want = binary.BigEndian.AppendUint32(want, v)
		}
		if r.kind != chunkBlockStatus || !bytes.Equal(r.data, want) {
			t.Errorf("status of %d+%d: %+v, want %x", test.offset, test.lenBytes, r, want)
		}
	}
}

func TestErrors(t *testing.T) {
	d := newRAM(mib, 4096)
	var fails error
	d.wait = func(string) error { return fails }
	_, socket := serve(t, ServerSpec{}, Export{Name: "a", Device: d})
	c := transmits(t, socket, "a", true)
	for _, test := range []struct {
		err  error
		want errno
	}{
		{block.ErrRange, errnoNoSpace}, {block.ErrAlignment, errnoInvalid}, {block.ErrReadOnly, errnoPerm},
		{block.ErrNoSpace, errnoNoSpace}, {block.ErrCorrupt, errnoIO}, {block.ErrUnsupported, errnoInvalid},
		{block.ErrClosed, errnoShutdown}, {syscall.EDQUOT, errnoNoSpace}, {errors.New("anything"), errnoIO},
		{syscall.ENOMEM, errnoNoMemory}, {syscall.EPERM, errnoPerm}, {syscall.ETIMEDOUT, errnoIO},
	} {
		fails = test.err
		r := c.do(commandWrite, 0, 0, 4096, make([]byte, 4096))
		if r.err != test.want || !bytes.Contains(r.data, []byte(test.err.Error())) {
			t.Errorf("%v: %d %q, want %d", test.err, r.err, r.data, test.want)
		}
	}
	fails = block.ErrCorrupt
	if r := c.do(commandRead, 0, 0, 4096, nil); r.err != errnoIO || r.flags != chunkDone {
		t.Errorf("read: %+v", r)
	}
	if r := transmits(t, socket, "a", false).do(commandRead, 0, 0, 4096, nil); r.err != errnoIO || r.chunk {
		t.Errorf("simple read: %+v", r)
	}
}

// TestBytesBesideBlocks has a client that knows nothing of blocks change single
// bytes while another one changes the rest of the same blocks, in whole ones:
// each block has the bytes of both or of the second.
func TestBytesBesideBlocks(t *testing.T) {
	d := newRAM(mib, 4096)
	_, socket := serve(t, ServerSpec{}, Export{Name: "a", Device: d})
	blocks := transmits(t, socket, "a", false)
	blocks.do(commandWrite, 0, 0, 4096, make([]byte, 4096)) // before anybody needs bytes
	single := transmitsAsking(t, socket, "a", false)
	const rounds = 200
	for i := range rounds {
		at := uint64(i%16) * 4096
		single.send(commandWrite, 0, at+100, 1, []byte{1})
		blocks.send(commandWrite, 0, at, 4096, bytes.Repeat([]byte{byte(2 + i%200)}, 4096))
		for _, c := range []*client{single, blocks} {
			if r := c.receive(); r.err != 0 {
				t.Fatalf("%+v", r)
			}
		}
		got := single.readAt(at+99, 3)
		if other := byte(2 + i%200); got[0] != other || got[2] != other || got[1] != other && got[1] != 1 {
			t.Fatalf("round %d: %d", i, got)
		}
	}
	if r := single.do(commandTrim, 0, 1, 8192, nil); r.err != 0 {
		t.Errorf("unaligned trim: %+v", r)
	}
	if r := blocks.do(commandWrite, 0, 1, 1, []byte{1}); r.err != errnoInvalid {
		t.Errorf("unaligned write of a client that knows blocks: %+v", r)
	}
}
