"""A service for tests: appends lines to a file that it holds open, durably."""
import http.server, os

log = open("/data/log", "a+", buffering=1)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        try:
            if self.path == "/append":
                log.write("line\n")
                os.fsync(log.fileno())
            with open("/data/log") as f:
                answer = str(f.read().count("line\n"))
        except OSError as e:
            answer = str(e)
        body = answer.encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
