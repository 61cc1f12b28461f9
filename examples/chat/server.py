"""Answers every line with its number on this connection, and says how many
clients there are."""

import asyncio

clients = set()


async def serve(reader, writer):
    clients.add(writer)
    said = 0
    try:
        while await reader.readline():
            said += 1
            writer.write(b"%d of %d clients\n" % (said, len(clients)))
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        clients.discard(writer)
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "0.0.0.0", 7000, backlog=1000)
    print("listening", flush=True)
    await server.serve_forever()


asyncio.run(main())
