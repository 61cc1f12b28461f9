package inet

import (
	"net"
	"os"
	"testing"
)

func TestReadQuietSeesUnreadData(t *testing.T) {
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
	q, err := ReadQuiet(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if q.Established < 2 || q.Unread < 1 || q.SinceData == never {
		t.Errorf("sockets are %+v, want a connection with unread data", q)
	}
	after, err := Arrived(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if after <= before {
		t.Errorf("counter went from %d to %d over an accepted connection", before, after)
	}
}
