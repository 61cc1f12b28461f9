package checkpoint

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// python is the interpreter of the distribution.
const python = "/usr/bin/python3"

// needProgram skips the test where a real program is not installed.
func needProgram(t *testing.T, path string) string {
	t.Helper()
	found, err := exec.LookPath(path)
	if err != nil {
		t.Skipf("needs %s: %v", path, err)
	}
	return found
}

func writeFile(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// sleepCycles is how often each real program sleeps.
const sleepCycles = 3

// cycles puts the tree to sleep again and again. ask sends a request and
// answer takes its response: in every second cycle the request is sent while
// the tree sleeps. Everything seen from outside must be as it was.
func (tree *testTree) cycles(ask, answer func()) {
	t := tree.t
	t.Helper()
	ask()
	answer()
	for cycle := range sleepCycles {
		time.Sleep(50 * time.Millisecond) // let it become idle, so that nothing changes by itself
		var before snapshot
		if !tree.busy {
			before = tree.snapshot()
		}
		report := tree.sleep(DumpOptions{Verify: true})
		if tree.alive() {
			t.Fatal("processes are still there")
		}
		early := cycle%2 == 1
		if early {
			ask()
		}
		woken := tree.wake()
		t.Logf("cycle %d: wrote %d of %d KiB, dump %v; restore %v", cycle, report.WrittenBytes>>10, report.ResidentBytes>>10, report.Phases, woken.Phases)
		if !early {
			time.Sleep(50 * time.Millisecond)
			if !tree.busy {
				checkSame(t, before, tree.snapshot())
			}
			ask()
		}
		answer()
		if t.Failed() {
			t.Fatalf("in cycle %d", cycle)
		}
	}
	ask()
	answer()
}

// cyclesHTTP asks for path on one connection and wants want back.
func (tree *testTree) cyclesHTTP(c *client, path, want string) {
	tree.cycles(func() { c.get(path) }, func() {
		if got := c.response(); got != want {
			tree.t.Fatalf("answer is %.100q, want %.100q", got, want)
		}
	})
}

func TestPython(t *testing.T) {
	needProgram(t, python)
	tree := startTree(t, nil, python, "-u", "-c", `
import hashlib, http.server, os
data = bytearray(os.urandom(1<<20)*200)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    def log_message(self, *args): pass
    def do_GET(self):
        body = b"%s %d" % (b"intact" if hashlib.md5(data[-(8<<20):]+data[:8<<20]).hexdigest() == edge else b"damaged", len(data))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
edge = hashlib.md5(data[-(8<<20):]+data[:8<<20]).hexdigest()
http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
`)
	tree.loopbackUp()
	tree.cyclesHTTP(tree.dial("tcp", "127.0.0.1:8000"), "/", fmt.Sprintf("intact %d", 200<<20))
}

func TestNode(t *testing.T) {
	node := needProgram(t, "node")
	tree := startTree(t, nil, node, "-e", `
const http = require("http");
const kept = []; for (let i = 0; i < 100000; i++) kept.push({i, s: "item " + i});
let count = 0;
const server = http.createServer((request, response) => {
  let sum = 0; for (const k of kept) sum += k.i + k.s.length;
  setTimeout(() => response.end("sum " + sum), 5);
});
server.keepAliveTimeout = 0;
server.listen(8001, "127.0.0.1");
`)
	tree.loopbackUp()
	tree.cyclesHTTP(tree.dial("tcp", "127.0.0.1:8001"), "/", "sum 5000938890")
}

func TestRedis(t *testing.T) {
	redis := needProgram(t, "redis-server")
	tree := startTree(t, nil, redis, "--port", "6390", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir())
	tree.loopbackUp()
	c := tree.dial("tcp", "127.0.0.1:6390")
	c.send("DEBUG RELOAD\r\nDEBUG POPULATE 200000\r\n")
	c.line()
	if got := c.line(); got != "+OK" {
		c.send("EVAL \"for i=1,200000 do redis.call('set','key:'..i,'value:'..i) end return 'OK'\" 0\r\n")
		c.line()
		c.line()
	}
	n := 0
	tree.cycles(func() {
		n++
		c.send(fmt.Sprintf("SET k%d v%d\r\nGET k%d\r\nDBSIZE\r\nGET key:77\r\n", n, n, n))
	}, func() {
		want := fmt.Sprintf("+OK $%d v%d :%d $8 value:77", len(fmt.Sprint("v", n)), n, 200000+n)
		got := strings.Join([]string{c.line(), c.line(), c.line(), c.line(), c.line(), c.line()}, " ")
		if got != want {
			t.Fatalf("answer is %q, want %q", got, want)
		}
	})
}

func TestNginx(t *testing.T) {
	nginx := needProgram(t, "nginx")
	dir := t.TempDir()
	config := writeFile(t, dir, "nginx.conf", fmt.Sprintf(`
daemon off; user www-data; worker_processes 2; pid %[1]s/pid; error_log stderr;
events { worker_connections 64; }
http {
  access_log off; keepalive_timeout 600s; client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  limit_req_zone $binary_remote_addr zone=one:10m rate=1000r/s;
  server { listen 127.0.0.1:8002; location / { limit_req zone=one burst=100; return 200 "from nginx"; } }
}`, dir))
	tree := startTree(t, nil, nginx, "-c", config, "-e", "stderr")
	tree.loopbackUp()
	tree.cyclesHTTP(tree.dial("tcp", "127.0.0.1:8002"), "/", "from nginx")
}

const goServer = `package main

import (
	"fmt"
	"net/http"
	"runtime"
	"runtime/debug"
)

type node struct {
	next *node
	data [100]int
}

func main() {
	var list *node
	for i := range 50000 {
		list = &node{next: list}
		list.data[i%100] = i
	}
	go func() {
		for range 1 << 40 {
			_ = make([]byte, 1<<20)
			runtime.GC()
		}
	}()
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		sum := 0
		for n := list; n != nil; n = n.next {
			for _, v := range n.data {
				sum += v
			}
		}
		debug.FreeOSMemory()
		for range 20 {
			for i, v := range make([]byte, 3<<20) {
				if v != 0 {
					http.Error(w, fmt.Sprint("dirty at ", i), 500)
					return
				}
			}
		}
		fmt.Fprint(w, "sum ", sum)
	})
	panic(http.ListenAndServe("127.0.0.1:8003", nil))
}
`

// goBuild builds a program of one file.
func goBuild(t *testing.T, source string) string {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, dir, "main.go", source)
	writeFile(t, dir, "go.mod", "module program\n\ngo 1.26\n")
	cmd := exec.Command(needProgram(t, "go"), "build", "-o", "program", ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return filepath.Join(dir, "program")
}

func TestGo(t *testing.T) {
	program := goBuild(t, goServer)
	tree := startTree(t, nil, program)
	tree.loopbackUp()
	c := tree.dial("tcp", "127.0.0.1:8003")
	tree.busy = true // collects garbage all the time
	tree.cyclesHTTP(c, "/", "sum 1249975000")
}

const javaServer = `
import com.sun.net.httpserver.*;
import java.net.*;
import java.util.*;
import java.util.concurrent.*;

public class Server {
  static Map<Integer, String> kept = new HashMap<>();
  public static void main(String[] args) throws Exception {
    for (int i = 0; i < 200000; i++) kept.put(i, "item " + i);
    HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", 8004), 0);
    server.setExecutor(Executors.newFixedThreadPool(4));
    server.createContext("/", exchange -> {
      long sum = 0;
      for (Map.Entry<Integer, String> e : kept.entrySet()) sum += e.getKey() + e.getValue().length();
      for (int n = 0; n < 20; n++) for (byte b : new byte[3 << 20]) if (b != 0) sum = -1;
      System.gc();
      byte[] body = ("sum " + sum).getBytes();
      exchange.sendResponseHeaders(200, body.length);
      exchange.getResponseBody().write(body);
      exchange.close();
    });
    server.start();
  }
}
`

func TestJava(t *testing.T) {
	java, javac := needProgram(t, "java"), needProgram(t, "javac")
	dir := t.TempDir()
	writeFile(t, dir, "Server.java", javaServer)
	if out, err := exec.Command(javac, "-d", dir, filepath.Join(dir, "Server.java")).CombinedOutput(); err != nil {
		t.Fatalf("javac: %v\n%s", err, out)
	}
	tree := startTree(t, nil, java, "-Xmx256m", "-XX:+UseG1GC", "-Xlog:disable", "-Dsun.net.httpserver.idleInterval=600", "-cp", dir, "Server")
	tree.loopbackUp()
	c := tree.dial("tcp", "127.0.0.1:8004")
	tree.busy = true // has compiler threads that come and go
	tree.cyclesHTTP(c, "/", "sum 20001988890")
}

func TestPostgres(t *testing.T) {
	bin := needPostgres(t)
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	as := func(args ...string) []string {
		return append([]string{"setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups", "--"}, args...)
	}
	initdb := as(filepath.Join(bin, "initdb"), "-D", data, "-A", "trust", "-N", "-E", "UTF8", "--no-locale")
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command(initdb[0], initdb[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	tree := startTree(t, nil, as(filepath.Join(bin, "postgres"), "-D", data, "-h", "127.0.0.1", "-p", "8005", "-k", dir,
		"-c", "fsync=off", "-c", "shared_buffers=32MB")...)
	tree.loopbackUp()
	session := newPostgresSession(tree, "127.0.0.1:8005")
	session.query("create table t (n int, s text); insert into t select i, 'row ' || i from generate_series(1, 20000) i")
	n := 0
	tree.busy = true // its workers come and go
	tree.cycles(func() {
		n++
		session.send(fmt.Sprintf("insert into t values (%d, 'new'); select count(*) || ' ' || sum(n) from t where n <= 20000 union all select count(*)::text from t where s = 'new'", 20000+n))
	}, func() {
		if got, want := strings.Join(session.rows(), ","), fmt.Sprintf("20000 200010000,%d", n); got != want {
			t.Fatalf("answer is %q, want %q", got, want)
		}
	})
}

// needPostgres returns the directory of PostgreSQL's programs.
func needPostgres(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		t.Skip("needs PostgreSQL")
	}
	return filepath.Dir(found[len(found)-1])
}

// TestIgnoredSignalsAreNotInherited is restored by a process that ignores SIGHUP,
// as one does that was started by nohup.
func TestIgnoredSignalsAreNotInherited(t *testing.T) {
	tree := startTree(t, nil, needProgram(t, "python3"), "-c", `
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *args): pass
http.server.HTTPServer(("127.0.0.1", 8001), Handler).serve_forever()
`)
	tree.loopbackUp()
	connection := tree.dial("tcp", "127.0.0.1:8001")
	signal.Ignore(syscall.SIGHUP)
	defer signal.Reset(syscall.SIGHUP)
	tree.cyclesHTTP(connection, "/", "ok")
}
