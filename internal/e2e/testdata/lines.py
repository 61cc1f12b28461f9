"""A service for tests of connections: answers every line of a connection with
its number there, and every datagram with its number. Several workers have a
listener each."""
import asyncio, os, socket

port, workers = 8000, int(os.environ.get("WORKERS", "1"))


async def serve(reader, writer):
    n = 0
    while line := await reader.readline():
        n += 1
        writer.write(b"%d " % n + line)
    writer.close()


class Datagrams(asyncio.DatagramProtocol):
    n = 0

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, peer):
        self.n += 1
        self.transport.sendto(b"%d " % self.n + data, None if self.transport.get_extra_info("peername") else peer)


async def main():
    options = {"reuse_port": workers > 1, "backlog": 1024}
    if os.environ.get("DUAL"):
        options.update(family=socket.AF_INET6, dualstack_ipv6=True)
    server = await asyncio.start_server(serve, sock=socket.create_server(("", port), **options))
    loop = asyncio.get_running_loop()
    if "UDP" in os.environ:
        await loop.create_datagram_endpoint(Datagrams, local_addr=("0.0.0.0", port))
        peer, _, peer_port = os.environ["UDP"].rpartition(":")
        await loop.create_datagram_endpoint(Datagrams, local_addr=("0.0.0.0", port + 1), remote_addr=(peer, int(peer_port)))
    print("listening", flush=True)
    await server.serve_forever()


for _ in range(workers - 1):
    if os.fork() == 0:
        break
asyncio.run(main())
