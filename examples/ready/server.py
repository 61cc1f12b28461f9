"""Prepares for three seconds, then says who it is and a random number."""
import http.server
import os
import random
import time

time.sleep(3)
prepared = time.strftime("%H:%M:%S")
random.random()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{os.uname().nodename}, prepared at {prepared}, random number {random.getrandbits(32)}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


print("listening", flush=True)
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
