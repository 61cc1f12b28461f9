"""A service for tests: counts its requests, says its pid, ends when told."""
import http.server, os, signal, sys, time

heap = bytearray(b"x" * (int(os.environ.get("HEAP_MB", "10")) << 20))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    count = 0

    def do_GET(self):
        if self.path == "/exit":
            print("exit asked", flush=True)
            os._exit(int(os.environ.get("EXIT", "7")))
        Handler.count += 1
        answers = {
            "/count": lambda: Handler.count,
            "/peer": lambda: self.client_address[0],
            "/env": lambda: os.environ.get("COLOR", ""),
            "/started": lambda: started,
        }
        body = str(answers.get(self.path, lambda: "ok")()).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        print("answered", self.path, flush=True)

    def log_message(self, *args):
        pass


def terminate(*_):
    print("terminating", flush=True)
    if "MARK" in os.environ:
        with open(os.environ["MARK"], "a") as f:
            f.write("clean end after %d\n" % Handler.count)
    os._exit(0)


signal.signal(signal.SIGTERM, terminate)
started = time.time_ns()
print("listening", flush=True)
print("a warning", file=sys.stderr, flush=True)
http.server.ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("PORT", "8000"))), Handler).serve_forever()
