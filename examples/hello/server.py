"""Answers GET / over HTTP/1.1, so that a connection stays open, and keeps
HEAP_MB megabytes in memory, which every answer reads a little of."""

import http.server
import json
import os
import random
import threading
import time

heap_mb = int(os.environ.get("HEAP_MB", "10"))
heap = [random.randbytes(1 << 20) for _ in range(heap_mb)]
checksum = sum(block[0] for block in heap)
started = time.time()
lock = threading.Lock()
count = 0


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        global count
        with lock:
            count += 1
            number = count
        body = json.dumps({
            "hello": "world",
            "request": number,
            "client": self.client_address[0],
            "heap_mb": len(heap),
            "heap_intact": sum(block[0] for block in heap) == checksum,
            "up_seconds": round(time.time() - started, 1),
        }).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        print(self.client_address[0], format % args, flush=True)


server = http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler)
print("ready, heap of", heap_mb, "MB", flush=True)
server.serve_forever()
