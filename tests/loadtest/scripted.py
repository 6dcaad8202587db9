"""An HTTP server on loopback that answers each request as its script says; the tests' other side."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

Reply = bytes | None  # None: the server says nothing and waits until it is closed


def answer(status: int = 200, body: bytes = b"ok", extra: str = "") -> bytes:
    return f"HTTP/1.1 {status} Said\r\ncontent-length: {len(body)}\r\n{extra}\r\n".encode() + body


@dataclass
class ScriptedServer:
    """`reply` is asked with the number of the request (from 0) and its head; an empty reply closes the connection."""

    reply: Callable[[int, str], Reply]
    url: str = ""
    connections: int = 0
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(line for line in head.split("\r\n") if line.startswith("content-length:"))
                self.heads.append(head)
                self.bodies.append(await reader.readexactly(int(length.partition(":")[2])))
                reply = self.reply(len(self.heads) - 1, head)
                if reply == b"":
                    break
                if reply is not None:
                    writer.write(reply)
        writer.close()


@contextlib.asynccontextmanager
async def scripted(reply: Sequence[Reply] | Callable[[int, str], Reply]) -> AsyncIterator[ScriptedServer]:
    """A list: one reply per request, the last for all that follow."""
    chosen = reply if callable(reply) else lambda index, _head: reply[min(index, len(reply) - 1)]
    server = ScriptedServer(chosen)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listener:
        host, port = listener.sockets[0].getsockname()
        server.url = f"http://{host}:{port}/v2/models/noop"
        try:
            yield server
        finally:
            for writer in server.writers:
                writer.close()
            for writer in server.writers:
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
