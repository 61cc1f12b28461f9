"""Opens many TCP connections to examples/chat and says a line on each. For each
line of standard input, a number, it says one on so many of them, in random
order. Prints for each: milliseconds for the first, and for all, and how many
segments had to be sent again since the connections were opened."""

import random
import resource
import socket
import struct
import sys
import time

count = int(sys.argv[3])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Client:
    def __init__(self):
        self.connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=30)
        self.answers = self.connection.makefile("rb")
        self.said = 0

    def say(self):
        self.said += 1
        self.connection.sendall(b"hello\n")
        answer = self.answers.readline()
        if not answer.startswith(b"%d of " % self.said):
            sys.exit(f"the service answered {answer!r}")

    def sent_again(self):
        total_retrans = 100  # offset in struct tcp_info of linux/tcp.h
        return struct.unpack_from("I", self.connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), total_retrans)[0]


clients = [Client() for _ in range(count)]


def say(number):
    chosen = random.sample(clients, number)
    start = time.perf_counter()
    chosen[0].say()
    first = time.perf_counter()
    for client in chosen[1:]:
        client.say()
    ms = lambda end: f"{(end - start) * 1000:.1f}"
    print(ms(first), ms(time.perf_counter()), sum(c.sent_again() for c in clients), flush=True)


say(count)
for line in sys.stdin:
    say(int(line))
