package nbd

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"
)

// client speaks the protocol byte by byte, also wrongly.
type client struct {
	t      testing.TB
	conn   net.Conn
	cookie uint64
}

type optionReply struct {
	kind uint32
	data []byte
}

type reply struct {
	cookie uint64
	chunk  bool
	flags  uint16
	kind   uint16 // of a chunk
	err    errno
	data   []byte // of a chunk
}

func dial(t testing.TB, socket string) *client {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c := &client{t: t, conn: conn}
	c.wait()
	return c
}

// wait bounds what hangs, from now on.
func (c *client) wait() { c.conn.SetDeadline(time.Now().Add(30 * time.Second)) }

// greeted is a client after the greeting, with the flags it sends.
func greeted(t testing.TB, socket string, flags uint32) *client {
	t.Helper()
	c := dial(t, socket)
	b := c.read(18)
	if binary.BigEndian.Uint64(b) != magicServer || binary.BigEndian.Uint64(b[8:]) != magicOption || binary.BigEndian.Uint16(b[16:]) != 3 {
		t.Fatalf("greeting %x", b)
	}
	c.write(binary.BigEndian.AppendUint32(nil, flags))
	return c
}

// transmits is a client in the transmission phase, which has asked for block
// sizes.
func transmits(t testing.TB, socket, name string, structured bool) *client {
	t.Helper()
	return transmitsAsking(t, socket, name, structured, infoBlockSize)
}

// transmitsAsking is a client that has asked for information of these kinds.
func transmitsAsking(t testing.TB, socket, name string, structured bool, kinds ...uint16) *client {
	t.Helper()
	c := greeted(t, socket, 3)
	if structured {
		c.option(optionStructuredReply, nil)
		c.option(optionSetMetaContexts, metaData(name, metaAllocation))
	}
	replies := c.option(optionGo, infoData(name, kinds...))
	if last := replies[len(replies)-1]; last.kind != replyAck {
		t.Fatalf("GO: %#x %s", last.kind, last.data)
	}
	return c
}

func (c *client) write(parts ...[]byte) {
	c.t.Helper()
	c.wait()
	if _, err := c.conn.Write(bytes.Join(parts, nil)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) read(n int) []byte {
	c.t.Helper()
	c.wait()
	b := make([]byte, n)
	if _, err := io.ReadFull(c.conn, b); err != nil {
		c.t.Fatal(err)
	}
	return b
}

// hungUp wants that the server closes the connection, without a word more.
func (c *client) hungUp() {
	c.t.Helper()
	c.wait()
	rest, err := io.ReadAll(c.conn)
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() || len(rest) > 0 {
		c.t.Errorf("server did not hang up: %x, %v", rest, err)
	}
}

func optionBytes(code uint32, data []byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, magicOption)
	b = binary.BigEndian.AppendUint32(b, code)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

func infoData(name string, kinds ...uint16) []byte {
	b := append(binary.BigEndian.AppendUint32(nil, uint32(len(name))), name...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(kinds)))
	for _, k := range kinds {
		b = binary.BigEndian.AppendUint16(b, k)
	}
	return b
}

func metaData(name string, queries ...string) []byte {
	b := append(binary.BigEndian.AppendUint32(nil, uint32(len(name))), name...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(queries)))
	for _, q := range queries {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(q))), q...)
	}
	return b
}

// option sends an option and returns all replies to it.
func (c *client) option(code uint32, data []byte) []optionReply {
	c.t.Helper()
	c.write(optionBytes(code, data))
	var replies []optionReply
	for {
		b := c.read(20)
		if binary.BigEndian.Uint64(b) != magicOptionReply || binary.BigEndian.Uint32(b[8:]) != code {
			c.t.Fatalf("reply to option %d: %x", code, b)
		}
		r := optionReply{kind: binary.BigEndian.Uint32(b[12:]), data: c.read(int(binary.BigEndian.Uint32(b[16:])))}
		replies = append(replies, r)
		if r.kind == replyAck || r.kind&replyError != 0 {
			return replies
		}
	}
}

// final is the kind of the last reply to an option.
func (c *client) final(code uint32, data []byte) uint32 {
	c.t.Helper()
	replies := c.option(code, data)
	return replies[len(replies)-1].kind
}

// send sends a request and returns its cookie.
func (c *client) send(cmd command, flags uint16, offset uint64, lenBytes uint32, data []byte) uint64 {
	c.t.Helper()
	c.cookie++
	h := header{flags: flags, command: cmd, cookie: c.cookie, offset: offset, lenBytes: lenBytes}
	c.write(h.append(nil), data)
	return c.cookie
}

// receive reads one simple reply, whose data the caller reads, or a chunk.
func (c *client) receive() reply {
	c.t.Helper()
	b := c.read(simpleReplyBytes)
	switch magic := binary.BigEndian.Uint32(b); magic {
	case magicSimpleReply:
		return reply{err: errno(binary.BigEndian.Uint32(b[4:])), cookie: binary.BigEndian.Uint64(b[8:])}
	case magicChunk:
		lenBytes := binary.BigEndian.Uint32(c.read(4))
		r := reply{
			chunk: true, flags: binary.BigEndian.Uint16(b[4:]), kind: binary.BigEndian.Uint16(b[6:]),
			cookie: binary.BigEndian.Uint64(b[8:]), data: c.read(int(lenBytes)),
		}
		if r.kind == chunkError {
			r.err = errno(binary.BigEndian.Uint32(r.data))
		}
		return r
	default:
		c.t.Fatalf("reply %x", b)
		return reply{}
	}
}

// do sends a request and wants its reply, which is the only one.
func (c *client) do(cmd command, flags uint16, offset uint64, lenBytes uint32, data []byte) reply {
	c.t.Helper()
	cookie := c.send(cmd, flags, offset, lenBytes, data)
	r := c.receive()
	if r.cookie != cookie {
		c.t.Fatalf("reply to %d, want %d", r.cookie, cookie)
	}
	return r
}

// readAt reads by a client without structured replies.
func (c *client) readAt(offset uint64, lenBytes uint32) []byte {
	c.t.Helper()
	if r := c.do(commandRead, 0, offset, lenBytes, nil); r.err != 0 || r.chunk {
		c.t.Fatalf("read %d+%d: %+v", offset, lenBytes, r)
	}
	return c.read(int(lenBytes))
}
