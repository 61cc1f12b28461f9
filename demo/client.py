"""Opens one TCP connection and sends an HTTP request over it for each line of
standard input. Prints for each answer: milliseconds, and the JSON body."""

import json
import socket
import sys
import time

connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=30)
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
answers = connection.makefile("rb")
for _ in sys.stdin:
    start = time.perf_counter()
    connection.sendall(b"GET / HTTP/1.1\r\nHost: demo\r\n\r\n")
    status = answers.readline()
    if not status.startswith(b"HTTP/1.1 200"):
        sys.exit(f"the service answered {status!r}")
    length = 0
    while (line := answers.readline().strip()):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    body = json.loads(answers.read(length))
    print(f"{(time.perf_counter() - start) * 1000:.1f}", json.dumps(body), flush=True)
