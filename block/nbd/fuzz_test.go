package nbd

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"
	"time"

	"torpor/block"
)

// scripted is a connection whose client said all it says already.
type scripted struct {
	in  *bytes.Reader
	out bytes.Buffer
}

func (s *scripted) Read(p []byte) (int, error)       { return s.in.Read(p) }
func (s *scripted) Write(p []byte) (int, error)      { return s.out.Write(p) }
func (s *scripted) Close() error                     { return nil }
func (s *scripted) LocalAddr() net.Addr              { return &net.UnixAddr{} }
func (s *scripted) RemoteAddr() net.Addr             { return &net.UnixAddr{} }
func (s *scripted) SetDeadline(time.Time) error      { return nil }
func (s *scripted) SetReadDeadline(time.Time) error  { return nil }
func (s *scripted) SetWriteDeadline(time.Time) error { return nil }

func clientFlags(flags uint32) []byte { return binary.BigEndian.AppendUint32(nil, flags) }

// FuzzHandshake wants every handshake to end, with replies that are well-formed.
func FuzzHandshake(f *testing.F) {
	options := [][]byte{
		optionBytes(optionList, nil), optionBytes(optionStructuredReply, nil),
		optionBytes(optionSetMetaContexts, metaData("a", "base:", metaAllocation)),
		optionBytes(optionListMetaContexts, metaData("a")), optionBytes(optionInfo, infoData("a", 0, 1, 2, 3)),
		optionBytes(optionGo, infoData("a", infoBlockSize)), optionBytes(optionExportName, []byte("a")),
		optionBytes(optionStartTLS, nil), optionBytes(optionAbort, nil), optionBytes(77, make([]byte, 100)),
	}
	for _, o := range options {
		f.Add(append(clientFlags(3), o...))
	}
	f.Add(append(clientFlags(3), bytes.Join(options, nil)...))
	f.Add(append(clientFlags(1), optionBytes(optionGo, []byte{0, 0, 0, 200, 'a'})...))
	f.Fuzz(func(t *testing.T, said []byte) {
		s, err := New(ServerSpec{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Add(Export{Name: "a", Device: newRAM(65536, 512)}); err != nil {
			t.Fatal(err)
		}
		conn := &scripted{in: bytes.NewReader(said)}
		h := handshake{catalog: s, conn: conn, in: newIntake(conn, nil)}
		err = h.run()
		if (err == nil) != (h.terms.export != nil && h.terms.flags&transmitHasFlags != 0) && err == nil {
			t.Error("transmission without terms")
		}
		checkReplies(t, append(conn.out.Bytes(), h.out.Bytes()...), err == nil)
	})
}

// checkReplies takes what a server said in the handshake apart. Behind the last
// reply may be that to EXPORT_NAME, which has no head.
func checkReplies(t *testing.T, said []byte, done bool) {
	said = said[18:]
	for len(said) >= 20 && binary.BigEndian.Uint64(said) == magicOptionReply {
		n := 20 + int(binary.BigEndian.Uint32(said[16:]))
		if n > len(said) {
			t.Fatalf("reply is longer than what was sent: %x", said)
		}
		said = said[n:]
	}
	if rest := len(said); rest != 0 && !(done && (rest == 10 || rest == 134)) {
		t.Errorf("%d bytes are no reply: %x", rest, said)
	}
}

// blank is a device that always reads as zeros, so that data is no reply.
type blank struct{ *ram }

func (d blank) ReadAt(p []byte, off block.Offset) error {
	clear(p)
	return d.ram.ReadAt(nil, off)
}

// FuzzRequests wants each request to be answered once, in form, and the device
// to be asked for what is in it only.
func FuzzRequests(f *testing.F) {
	request := func(cmd command, flags uint16, offset uint64, lenBytes uint32, data int) []byte {
		h := header{flags: flags, command: cmd, cookie: 5, offset: offset, lenBytes: lenBytes}
		return append(h.append(nil), make([]byte, data)...)
	}
	seeds := [][]byte{
		request(commandRead, 0, 0, 512, 0), request(commandWrite, flagFUA, 512, 1024, 1024),
		request(commandWriteZeroes, flagFastZero, 0, 65536, 0), request(commandTrim, 0, 0, 4096, 0),
		request(commandBlockStatus, flagReqOne, 0, 65536, 0), request(commandFlush, 0, 0, 0, 0),
		request(commandCache, 0, 0, 65536, 0), request(commandRead, flagDF, 0, 65536, 0),
		request(commandWrite, 0, 1<<63, 512, 512), request(99, 0xffff, 0, 0, 0), request(commandRead, 0, 0, 1<<32-1, 0),
		request(commandDisconnect, 0, 0, 0, 0),
	}
	for _, s := range seeds {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Add(bytes.Join(seeds, nil), true)
	f.Add(bytes.Join(seeds, nil), false)
	f.Fuzz(func(t *testing.T, said []byte, structured bool) {
		s, err := New(ServerSpec{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Add(Export{Name: "a", Device: blank{newRAM(65536, 512)}}); err != nil {
			t.Fatal(err)
		}
		script := &scripted{in: bytes.NewReader(said)}
		c := newConn(s, script)
		c.terms = terms{
			export: s.find("a"), flags: flagsFor(false, structured), sizeBytes: 65536, blockBytes: 512,
			structured: structured, meta: structured,
		}
		c.in = newIntake(script, nil)
		if err := c.begin(nil); err != nil {
			t.Fatal(err)
		}
		c.end(c.transmit())
		answers := countReplies(t, script.out.Bytes(), structured)
		if asked := countRequests(said); answers != asked {
			t.Errorf("%d answers to %d requests", answers, asked)
		}
	})
}

// countRequests follows what a client said as far as a server does.
func countRequests(said []byte) (n int) {
	for len(said) >= requestBytes {
		h, err := decodeHeader(said)
		said = said[requestBytes:]
		if err != nil || h.command == commandDisconnect || h.payloadBytes() > int64(len(said)) {
			return n
		}
		said = said[h.payloadBytes():]
		n++
	}
	return n
}

// countReplies counts those that are the last to a request.
func countReplies(t *testing.T, said []byte, structured bool) (n int) {
	for len(said) > 0 {
		switch {
		case len(said) >= simpleReplyBytes && binary.BigEndian.Uint32(said) == magicSimpleReply:
			said = said[simpleReplyBytes:]
			n++
		case structured && len(said) >= chunkHeadBytes && binary.BigEndian.Uint32(said) == magicChunk:
			lenBytes := int(binary.BigEndian.Uint32(said[16:]))
			if len(said) < chunkHeadBytes+lenBytes {
				t.Fatalf("chunk is longer than what was sent: %x", said[:chunkHeadBytes])
			}
			n += int(binary.BigEndian.Uint16(said[4:]) & chunkDone)
			said = said[chunkHeadBytes+lenBytes:]
		case !structured:
			said = said[1:] // data
		default:
			t.Fatalf("no reply: %x", said[:min(len(said), 40)])
		}
	}
	return n
}
