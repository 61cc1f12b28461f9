package bench

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// program is a real server whose start is measured.
type program struct {
	name string
	// args returns its command line for a port; dir is a directory of its own.
	// An error says what is not installed.
	args func(port int, dir string) ([]string, error)
	// ask sends a request on a new connection and checks the answer.
	ask func(net.Conn) error
}

// programs are those whose starts are compared: from ones that have nothing to
// do to ones that take seconds.
func programs(self, python string, heapMB int) []program {
	return []program{
		{fmt.Sprintf("python %d MB", heapMB), func(port int, _ string) ([]string, error) {
			return []string{python, "-c", server, fmt.Sprint(heapMB), fmt.Sprint(port)}, installed(python)
		}, askHTTP},
		{"django", func(port int, _ string) ([]string, error) {
			return []string{python, "-c", djangoServer, fmt.Sprint(port)}, exec.Command(python, "-c", "import django").Run()
		}, askHTTP},
		{"node", func(port int, _ string) ([]string, error) {
			return []string{"node", "-e", nodeServer, fmt.Sprint(port)}, installed("node")
		}, askHTTP},
		{"go", func(port int, _ string) ([]string, error) {
			return []string{self, "bench", "server", fmt.Sprint(port)}, nil
		}, askHTTP},
		{"redis", func(port int, dir string) ([]string, error) {
			return []string{"redis-server", "--port", fmt.Sprint(port), "--save", "", "--dir", dir, "--logfile", "/dev/null"}, installed("redis-server")
		}, askRedis},
		{"java", func(port int, dir string) ([]string, error) {
			path := filepath.Join(dir, "Server.java")
			return []string{"java", "-XX:-UsePerfData", "-Xshare:auto", path, fmt.Sprint(port)}, writeJava(path)
		}, askHTTP},
		{"tomcat", tomcatArgs, askHTTPAny},
	}
}

func installed(name string) error {
	_, err := exec.LookPath(name)
	return err
}

// djangoServer is what a small site imports: the ORM, templates, forms, the
// admin, and the reference server of the standard library.
const djangoServer = `
import sys
from django.conf import settings
settings.configure(SECRET_KEY="bench", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=["django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "django.contrib.messages"],
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}])
import django
django.setup()
from django.contrib import admin
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path
admin.autodiscover()
urlpatterns = [path("", lambda request: HttpResponse("awake\n")), path("admin/", admin.site.urls)]
application = get_wsgi_application()
from django.test import RequestFactory
from wsgiref.simple_server import make_server, WSGIRequestHandler
class Quiet(WSGIRequestHandler):
    def log_message(self, *args): pass
make_server("0.0.0.0", int(sys.argv[1]), application, handler_class=Quiet).serve_forever()
`

const nodeServer = `
for (const name of require("module").builtinModules) if (!name.startsWith("_")) try { require(name); } catch {}
const kept = []; for (let i = 0; i < 200000; i++) kept.push({i, name: "item " + i});
require("http").createServer((request, response) => response.end("awake\n")).listen(+process.argv[1], "0.0.0.0");
`

// writeJava writes a server that the java launcher compiles at each start, as
// slow as frameworks that generate code.
func writeJava(path string) error {
	if err := installed("javac"); err != nil { // the launcher needs its module
		return err
	}
	return os.WriteFile(path, []byte(`
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.util.*;
public class Server {
    public static void main(String[] args) throws Exception {
        List<String> kept = new ArrayList<>();
        for (int i = 0; i < 500000; i++) kept.add("item " + i);
        HttpServer server = HttpServer.create(new InetSocketAddress("0.0.0.0", Integer.parseInt(args[0])), 0);
        server.createContext("/", exchange -> {
            byte[] body = "awake\n".getBytes();
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
    }
}
`), 0o644)
}

// tomcatHome is where Debian has Tomcat.
const tomcatHome = "/usr/share/tomcat10"

// tomcatArgs make a Tomcat with the applications that its package has.
func tomcatArgs(port int, dir string) ([]string, error) {
	if _, err := os.Stat(tomcatHome + "/bin/bootstrap.jar"); err != nil {
		return nil, err
	}
	for _, name := range []string{"conf", "logs", "temp", "work", "webapps/ROOT"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return nil, err
		}
	}
	config := fmt.Sprintf(`<Server port="-1"><Service name="Catalina"><Connector port="%d" protocol="HTTP/1.1"/>
<Engine name="Catalina" defaultHost="localhost"><Host name="localhost" appBase="webapps"/></Engine></Service></Server>`, port)
	web := []byte(`<web-app><servlet><servlet-name>default</servlet-name><servlet-class>org.apache.catalina.servlets.DefaultServlet</servlet-class>
<load-on-startup>1</load-on-startup></servlet><servlet-mapping><servlet-name>default</servlet-name><url-pattern>/</url-pattern></servlet-mapping>
<welcome-file-list><welcome-file>index.html</welcome-file></welcome-file-list></web-app>`)
	for name, content := range map[string][]byte{"conf/server.xml": []byte(config), "conf/web.xml": web, "webapps/ROOT/index.html": []byte("awake\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return nil, err
		}
	}
	jars := tomcatHome + "/bin/bootstrap.jar:" + tomcatHome + "/bin/tomcat-juli.jar"
	return []string{"java", "-XX:-UsePerfData", "-cp", jars, "-Dcatalina.home=" + tomcatHome, "-Dcatalina.base=" + dir, "-Djava.io.tmpdir=" + dir + "/temp",
		"org.apache.catalina.startup.Bootstrap", "start"}, nil
}

// askHTTP wants the answer that all servers here give.
func askHTTP(c net.Conn) error {
	body, err := get(c)
	if err == nil && body != "awake\n" {
		err = fmt.Errorf("read answer: got %q", body)
	}
	return err
}

// askHTTPAny wants any answer.
func askHTTPAny(c net.Conn) error {
	_, err := get(c)
	return err
}

func get(c net.Conn) (string, error) {
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"); err != nil {
		return "", err
	}
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", fmt.Errorf("read answer: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("read answer: %s", response.Status)
	}
	return string(body), err
}

func askRedis(c net.Conn) error {
	if _, err := io.WriteString(c, "PING\r\n"); err != nil {
		return err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && line != "+PONG\r\n" {
		err = fmt.Errorf("read answer: got %q", line)
	}
	return err
}

// Serve is the Go program of the benchmark: it answers on a port until the
// process is killed.
func Serve(port string) error {
	kept := map[string]int{}
	for i := range 200_000 {
		kept["item "+strconv.Itoa(i)] = i
	}
	return http.ListenAndServe("0.0.0.0:"+port, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, strings.Repeat("awake\n", min(len(kept), 1)))
	}))
}

// answered asks again and again until the program answers.
func (p *program) answered(dial func() (net.Conn, error)) error {
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
		c, err := dial()
		if err == nil {
			c.SetDeadline(deadline)
			err = p.ask(c)
			c.Close()
		}
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("wait for %s: %w", p.name, err)
		}
	}
}
