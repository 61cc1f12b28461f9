package inet

import (
	"net"
	"os"
	"slices"
	"testing"
	"time"
)

func TestReadConnections(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	before, err := Arrived(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if _, err := client.Write([]byte("unread")); err != nil {
		t.Fatal(err)
	}
	all, err := ReadConnections(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for _, end := range []struct {
		conn net.Conn
		want Connection
	}{
		{server, Connection{Established: true, Unread: 6, BytesIn: 6, SegmentsIn: 1}},
		{client, Connection{Established: true, BytesOut: 6, SegmentsOut: 1}},
	} {
		local := end.conn.LocalAddr().(*net.TCPAddr).AddrPort()
		i := slices.IndexFunc(all, func(c Connection) bool {
			return c.Local == local && c.Remote == end.conn.RemoteAddr().(*net.TCPAddr).AddrPort()
		})
		if i < 0 {
			t.Fatalf("connection from %s is not in %+v", local, all)
		}
		got := all[i]
		if got.SegmentsIn > 0 && got.SinceIn > time.Minute || got.SegmentsOut > 0 && got.SinceOut > time.Minute {
			t.Errorf("connection from %s has %+v", local, got)
		}
		if got.Socket == 0 || slices.ContainsFunc(all, func(c Connection) bool { return c.Local != local && c.Socket == got.Socket }) {
			t.Errorf("connection from %s has socket %d, of %+v", local, got.Socket, all)
		}
		end.want.Local, end.want.Remote, end.want.Socket = got.Local, got.Remote, got.Socket
		got.AcksIn, got.AcksOut, got.SinceIn, got.SinceOut, got.KeepAlive = 0, 0, 0, 0, false
		if got != end.want {
			t.Errorf("connection is %+v, want %+v", got, end.want)
		}
	}
	after, err := Arrived(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if after <= before {
		t.Errorf("counter went from %d to %d over an accepted connection", before, after)
	}
}

// BenchmarkReadConnections reads 2000 ends of connections.
func BenchmarkReadConnections(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	for range 1000 {
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		defer client.Close()
		server, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		defer server.Close()
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ReadConnections(os.Getpid()); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzParseConnection reads what no kernel sends.
func FuzzParseConnection(f *testing.F) {
	message := make([]byte, diagBytes+4+infoBytes)
	message[diagState], message[diagBytes], message[diagBytes+2] = tcpEstablished, 4+infoBytes, attrInfo
	f.Add(message)
	f.Add(message[:diagBytes+3])
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, ok := parseConnection(b); ok && len(b) < diagBytes+infoBytes {
			t.Errorf("%d bytes are %+v", len(b), c)
		}
	})
}
