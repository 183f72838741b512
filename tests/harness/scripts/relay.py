"""A service on one event loop: for each GET /both/N two GETs to the server at UPSTREAM at the same time, over pooled
connections; asyncio of the standard library and nothing else. Arguments: its own port, that of the other server."""
import asyncio
import sys

PORT, UPSTREAM = (int(text) for text in sys.argv[1:3])
free = []


async def head(reader):
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    lengths = [int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length:")]
    return lines[0], sum(lengths)


async def leaf(number, index):
    await asyncio.sleep(number * 7 % 5 / 1000)
    reader, writer = free.pop() if free else await asyncio.open_connection("127.0.0.1", UPSTREAM)
    writer.write(f"GET /wait/{1 + number % 7}/{number * 10 + index} HTTP/1.1\r\nHost: leaf\r\n\r\n".encode())
    _, length = await head(reader)
    await reader.readexactly(length)
    free.append((reader, writer))


async def serve(reader, writer):
    try:
        while True:
            line, _ = await head(reader)
            number = int(line.split(" ")[1].rsplit("/", 1)[1])
            await asyncio.gather(leaf(number, 0), leaf(number, 1))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", PORT)
    await server.serve_forever()


asyncio.run(main())
