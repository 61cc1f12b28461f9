package checkpoint

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// readyPostgres is a PostgreSQL whose files are put back before each restore:
// Torpor itself starts one cold whose files have changed.
func readyPostgres(t *testing.T) *readyProgram {
	bin := needPostgres(t)
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	data := filepath.Join(dir, "data")
	as := func(args ...string) []string {
		return append([]string{"setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups", "--"}, args...)
	}
	initdb := as(filepath.Join(bin, "initdb"), "-D", data, "-A", "trust", "-N", "-E", "UTF8", "--no-locale")
	if out, err := exec.Command(initdb[0], initdb[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	saved := filepath.Join(dir, "saved")
	return &readyProgram{name: "postgres", port: 8005, slow: true,
		args: as(filepath.Join(bin, "postgres"), "-D", data, "-h", "127.0.0.1", "-p", "8005", "-k", dir, "-c", "fsync=off",
			"-c", "shared_buffers=32MB", "-c", "dynamic_shared_memory_type=mmap"),
		made:  func() { run(t, "cp", "-a", data, saved) },
		fresh: func() { run(t, "rm", "-rf", data); run(t, "cp", "-a", saved, data) },
		ask:   func(c net.Conn, n int) error { return askPostgres(c, fmt.Sprint("answer ", n)) },
	}
}

// askPostgres logs in and has a text echoed.
func askPostgres(c net.Conn, text string) error {
	reader := bufio.NewReader(c)
	body := binary.BigEndian.AppendUint32(nil, 196608)
	body = append(body, "user\x00postgres\x00database\x00postgres\x00\x00"...)
	if _, err := c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(4+len(body))), body...)); err != nil {
		return err
	}
	if _, err := postgresRows(reader); err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	query := "select '" + text + "', pg_sleep(0.001)\x00"
	if _, err := c.Write(append(binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(4+len(query))), query...)); err != nil {
		return err
	}
	rows, err := postgresRows(reader)
	if err == nil && (len(rows) != 1 || rows[0] != text) {
		err = fmt.Errorf("rows %q, want %q", rows, text)
	}
	return err
}

// postgresRows reads messages until the server is ready and returns the first
// column of each row.
func postgresRows(reader io.Reader) (rows []string, err error) {
	for {
		var header [5]byte
		if _, err := io.ReadFull(reader, header[:]); err != nil {
			return rows, err
		}
		body := make([]byte, binary.BigEndian.Uint32(header[1:])-4)
		if _, err := io.ReadFull(reader, body); err != nil {
			return rows, err
		}
		switch header[0] {
		case 'Z':
			return rows, nil
		case 'E':
			return rows, fmt.Errorf("server says %q", body)
		case 'D':
			rows = append(rows, string(body[6:6+binary.BigEndian.Uint32(body[2:])]))
		}
	}
}
