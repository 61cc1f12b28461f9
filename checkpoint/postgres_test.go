package checkpoint

import (
	"encoding/binary"
	"time"
)

// postgresSession speaks as much of PostgreSQL's protocol 3.0 as a simple
// query needs ("Message Formats" in its manual).
type postgresSession struct{ *client }

// newPostgresSession logs in as soon as the server lets it.
func newPostgresSession(tree *testTree, address string) *postgresSession {
	tree.t.Helper()
	body := binary.BigEndian.AppendUint32(nil, 196608)
	body = append(body, "user\x00postgres\x00database\x00postgres\x00\x00"...)
	for {
		s := &postgresSession{tree.dial("tcp", address)}
		s.client.send(string(append(binary.BigEndian.AppendUint32(nil, uint32(4+len(body))), body...)))
		if first, err := s.read.Peek(1); err != nil || first[0] == 'E' {
			time.Sleep(50 * time.Millisecond) // it is starting up
			continue
		}
		s.rows()
		return s
	}
}

// send sends a query and does not wait.
func (s *postgresSession) send(query string) {
	s.t.Helper()
	message := append([]byte{'Q'}, binary.BigEndian.AppendUint32(nil, uint32(4+len(query)+1))...)
	s.client.send(string(append(append(message, query...), 0)))
}

// query sends a query and waits for its end.
func (s *postgresSession) query(query string) []string {
	s.t.Helper()
	s.send(query)
	return s.rows()
}

// rows reads messages until the server is ready and returns the first column
// of each row.
func (s *postgresSession) rows() []string {
	s.t.Helper()
	s.conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	rows, err := postgresRows(s.read)
	if err != nil {
		s.t.Fatal(err)
	}
	return rows
}
