package checkpoint

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// readyProgram is a real server that is started from its ready checkpoint.
type readyProgram struct {
	name string
	port uint16
	args []string
	// ask sends request number n on a connection of its own and checks the answer.
	ask   func(c net.Conn, n int) error
	made  func() // when the checkpoint was made
	fresh func() // before each restore: makes the files what they were
	slow  bool   // restored ten times, not fifty
}

// Requests that each restored instance is asked at once, by so many clients.
const (
	readyClients  = 4
	readyRequests = 3
)

// TestReadyPrograms starts each program from its ready checkpoint, made before
// its first request, again and again: every byte is compared, and as soon as it
// runs it is asked by several clients at once. None may fail.
func TestReadyPrograms(t *testing.T) {
	for _, p := range []func(*testing.T) *readyProgram{
		readyPython, readyAsyncio, readyNode, readyNodeTLS, readyGo, readyRedis, readyMemcached, readyNginx, readyPHP, readyJava, readyPostgres,
	} {
		program := p(t)
		t.Run(program.name, program.run)
	}
}

func (p *readyProgram) run(t *testing.T) {
	tree := startTree(t, nil, p.args...)
	tree.loopbackUp()
	tree.waitListening(p.port)
	dir := filepath.Join(t.TempDir(), "ready")
	tree.makeReady(dir)
	if p.made != nil {
		p.made()
	}
	tree.askMany(p, 0) // the process that was checkpointed serves
	tree.end()
	times := 50
	if p.slow {
		times = 10
	}
	for i := range times {
		if p.fresh != nil {
			p.fresh()
		}
		instance := startTree(t, nil)
		instance.loopbackUp()
		if _, err := instance.tryRestoreReady(dir); err != nil {
			t.Fatalf("restore %d: %v", i, err)
		}
		instance.askMany(p, i)
		if t.Failed() {
			t.Fatalf("in restore %d", i)
		}
		instance.end()
	}
}

// end ends the tree with its namespaces.
func (tree *testTree) end() {
	tree.init.Process.Kill()
	tree.init.Wait()
}

// askMany lets several clients ask at once.
func (tree *testTree) askMany(p *readyProgram, restore int) {
	tree.t.Helper()
	var clients sync.WaitGroup
	for client := range readyClients {
		var conns []net.Conn
		tree.inNetwork(func() error {
			for range readyRequests {
				c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", p.port))
				if err != nil {
					return err
				}
				conns = append(conns, c)
			}
			return nil
		})
		clients.Go(func() {
			for i, c := range conns {
				c.SetDeadline(time.Now().Add(30 * time.Second))
				if err := p.ask(c, (restore*readyClients+client)*readyRequests+i); err != nil {
					tree.t.Errorf("client %d, request %d: %v", client, i, err)
				}
				c.Close()
			}
		})
	}
	clients.Wait()
}

// getPath asks by HTTP and returns the body.
func getPath(c net.Conn, path string) (string, error) {
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n", path); err != nil {
		return "", err
	}
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

// echoesNumber asks for /N and wants N back.
func echoesNumber(c net.Conn, n int) error {
	body, err := getPath(c, fmt.Sprintf("/%d", n))
	if want := fmt.Sprintf("/%d intact", n); err == nil && body != want {
		err = fmt.Errorf("answer %.100q, want %q", body, want)
	}
	return err
}

func readyPython(t *testing.T) *readyProgram {
	needProgram(t, python)
	return &readyProgram{name: "python", port: 8000, ask: echoesNumber, args: []string{python, "-u", "-c", `
import hashlib, http.server, os
data = os.urandom(1<<20)*2
want = hashlib.md5(data).hexdigest()
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args): pass
    def do_GET(self):
        body = ("%s %s" % (self.path, "intact" if hashlib.md5(data).hexdigest() == want else "damaged")).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()`}}
}

func readyAsyncio(t *testing.T) *readyProgram {
	needProgram(t, python)
	return &readyProgram{name: "asyncio", port: 8000, ask: echoesNumber, args: []string{python, "-u", "-c", `
import asyncio, signal
kept = {i: "item %d" % i for i in range(50000)}
async def serve(reader, writer):
    path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
    await asyncio.sleep(0.001)
    body = "%s %s" % (path, "intact" if all(kept[i] == "item %d" % i for i in range(0, 50000, 997)) else "damaged")
    writer.write(("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)).encode())
    await writer.drain()
    writer.close()
async def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)
    server = await asyncio.start_server(serve, "127.0.0.1", 8000)
    async with server:
        await server.serve_forever()
asyncio.run(main())`}}
}

const readyNodeHandler = `
const kept = []; for (let i = 0; i < 50000; i++) kept.push({i, s: "item " + i});
const handler = (request, response) => setTimeout(() =>
  response.end(request.url + (kept.every(k => k.s === "item " + k.i) ? " intact" : " damaged")), 1);
`

func readyNode(t *testing.T) *readyProgram {
	node := needProgram(t, "node")
	return &readyProgram{name: "node", port: 8001, ask: echoesNumber, args: []string{node, "-e", readyNodeHandler + `
require("http").createServer(handler).listen(8001, "127.0.0.1");`}}
}

func readyNodeTLS(t *testing.T) *readyProgram {
	node := needProgram(t, "node")
	dir := t.TempDir()
	pool := makeCertificate(t, dir)
	return &readyProgram{name: "node with TLS", port: 8001, args: []string{node, "-e", fmt.Sprintf(readyNodeHandler+`
const fs = require("fs");
require("https").createServer({key: fs.readFileSync("%[1]s/key"), cert: fs.readFileSync("%[1]s/cert")}, handler).listen(8001, "127.0.0.1");`, dir)},
		ask: func(c net.Conn, n int) error {
			secure := tls.Client(c, &tls.Config{RootCAs: pool, ServerName: "test"})
			return echoesNumber(secure, n)
		}}
}

// makeCertificate writes a key and a certificate for the name test.
func makeCertificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	encoded := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	writeFile(t, dir, "cert", string(encoded))
	writeFile(t, dir, "key", string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private})))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(encoded)
	return pool
}

func readyGo(t *testing.T) *readyProgram {
	program := goBuild(t, `package main

import (
	"fmt"
	"net/http"
	"runtime"
)

func main() {
	kept := map[int]string{}
	for i := range 50000 {
		kept[i] = fmt.Sprint("item ", i)
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		state := "intact"
		for i := range 50000 {
			if kept[i] != fmt.Sprint("item ", i) {
				state = "damaged"
			}
		}
		runtime.GC()
		fmt.Fprint(w, r.URL.Path, " ", state)
	})
	panic(http.ListenAndServe("127.0.0.1:8003", nil))
}
`)
	return &readyProgram{name: "go", port: 8003, ask: echoesNumber, args: []string{program}}
}

// says sends a request and wants an answer, as long as it is.
func says(c net.Conn, request, want string) error {
	if _, err := io.WriteString(c, request); err != nil {
		return err
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil {
		return fmt.Errorf("%q: %w", got, err)
	}
	if string(got) != want {
		return fmt.Errorf("answer %q, want %q", got, want)
	}
	return nil
}

func readyRedis(t *testing.T) *readyProgram {
	redis := needProgram(t, "redis-server")
	return &readyProgram{name: "redis", port: 6390, args: []string{redis, "--port", "6390", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir()},
		ask: func(c net.Conn, n int) error {
			value := fmt.Sprint("v", n)
			return says(c, fmt.Sprintf("SET k%d %s\r\nGET k%d\r\n", n, value, n), fmt.Sprintf("+OK\r\n$%d\r\n%s\r\n", len(value), value))
		}}
}

func readyMemcached(t *testing.T) *readyProgram {
	memcached := needProgram(t, "memcached")
	return &readyProgram{name: "memcached", port: 11311, args: []string{memcached, "-u", "nobody", "-l", "127.0.0.1", "-p", "11311", "-U", "0"},
		ask: func(c net.Conn, n int) error {
			value := fmt.Sprint("v", n)
			return says(c, fmt.Sprintf("set k%d 0 0 %d\r\n%s\r\nget k%d\r\n", n, len(value), value, n),
				fmt.Sprintf("STORED\r\nVALUE k%d 0 %d\r\n%s\r\nEND\r\n", n, len(value), value))
		}}
}

func readyNginx(t *testing.T) *readyProgram {
	nginx := needProgram(t, "nginx")
	dir := t.TempDir()
	config := writeFile(t, dir, "nginx.conf", fmt.Sprintf(`
daemon off; user www-data; worker_processes 2; pid %[1]s/pid; error_log stderr;
events { worker_connections 64; }
http {
  access_log off; client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  server { listen 127.0.0.1:8002; location / { return 200 "$request_uri intact"; } }
}`, dir))
	return &readyProgram{name: "nginx", port: 8002, ask: echoesNumber, args: []string{nginx, "-c", config, "-e", "stderr"}}
}

// readyPHP is php-fpm with a pool of workers, asked by FastCGI.
func readyPHP(t *testing.T) *readyProgram {
	found, err := filepath.Glob("/usr/sbin/php-fpm*")
	if err != nil || len(found) == 0 {
		t.Skip("needs php-fpm")
	}
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	script := writeFile(t, dir, "index.php", `<?php echo $_SERVER["REQUEST_URI"], " ", md5(str_repeat("x", 1 << 20));`)
	config := writeFile(t, dir, "fpm.conf", `
[global]
error_log = /dev/stderr
daemonize = no
[www]
user = www-data
group = www-data
listen = 127.0.0.1:9000
pm = static
pm.max_children = 3
`)
	return &readyProgram{name: "php-fpm", port: 9000, args: []string{found[0], "--nodaemonize", "--fpm-config", config},
		ask: func(c net.Conn, n int) error { return askFastCGI(c, script, fmt.Sprintf("/%d", n)) }}
}

// askFastCGI sends one request (FastCGI specification, section 3.3) and wants
// its path in the answer.
func askFastCGI(c net.Conn, script, path string) error {
	const begin, params, stdin, stdout, end = 1, 4, 5, 6, 3
	record := func(kind byte, content []byte) []byte {
		b := []byte{1, kind, 0, 1}
		b = binary.BigEndian.AppendUint16(b, uint16(len(content)))
		return append(append(b, 0, 0), content...)
	}
	var pairs []byte
	for _, p := range [][2]string{{"SCRIPT_FILENAME", script}, {"REQUEST_METHOD", "GET"}, {"REQUEST_URI", path}} {
		pairs = append(pairs, byte(len(p[0])))
		pairs = binary.BigEndian.AppendUint32(pairs, uint32(len(p[1]))|1<<31)
		pairs = append(append(pairs, p[0]...), p[1]...)
	}
	request := bytes.Join([][]byte{record(begin, []byte{0, 1, 0, 0, 0, 0, 0, 0}), record(params, pairs), record(params, nil), record(stdin, nil)}, nil)
	if _, err := c.Write(request); err != nil {
		return err
	}
	var output []byte
	for {
		var header [8]byte
		if _, err := io.ReadFull(c, header[:]); err != nil {
			return fmt.Errorf("read record: %w (so far %q)", err, output)
		}
		content := make([]byte, int(binary.BigEndian.Uint16(header[4:]))+int(header[6]))
		if _, err := io.ReadFull(c, content); err != nil {
			return err
		}
		switch header[1] {
		case stdout:
			output = append(output, content[:len(content)-int(header[6])]...)
		case end:
			if _, body, _ := strings.Cut(string(output), "\r\n\r\n"); body != path+" b561f87202d04959e37588ee05cf5b10" {
				return fmt.Errorf("answer %q", output)
			}
			return nil
		}
	}
}

func readyJava(t *testing.T) *readyProgram {
	java, javac := needProgram(t, "java"), needProgram(t, "javac")
	dir := t.TempDir()
	writeFile(t, dir, "Server.java", javaServer)
	if out, err := exec.Command(javac, "-d", dir, filepath.Join(dir, "Server.java")).CombinedOutput(); err != nil {
		t.Fatalf("javac: %v\n%s", err, out)
	}
	return &readyProgram{name: "java", port: 8004, slow: true,
		args: []string{java, "-Xmx256m", "-XX:-UsePerfData", "-Xlog:disable", "-cp", dir, "Server"},
		ask: func(c net.Conn, _ int) error {
			body, err := getPath(c, "/")
			if err == nil && body != "sum 20001988890" {
				err = fmt.Errorf("answer %q", body)
			}
			return err
		}}
}
