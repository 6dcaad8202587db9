"""A scripted HTTP server on loopback for the tests, and a scripted wire that needs no server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from loadtest.wires import Flight, NoAnswer
from serving.protocol.messages import InferRequest, TensorDescription

Reply = bytes | None  # None: the server sends nothing and waits until the connection is closed


def answer(status: int = 200, body: bytes = b"ok", extra: str = "") -> bytes:
    return f"HTTP/1.1 {status} Said\r\ncontent-length: {len(body)}\r\n{extra}\r\n".encode() + body


@dataclass
class ScriptedServer:
    """A scripted server. `reply` is called with the number of the request (from 0) and its head; an empty reply closes
    the connection."""

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
                length = next((line for line in head.lower().split("\r\n") if line.startswith("content-length:")), ":0")
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
    """Runs a scripted server. A list: one reply per request; the last is repeated."""
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


@dataclass
class ScriptedWire:
    """A wire that answers at once with scripted instants: `flight(n, prepared)` for the n-th request."""

    flight: Callable[[int, object], Flight | Exception]
    inputs: Mapping[str, list[TensorDescription]] = field(default_factory=dict)
    sent: list[object] = field(default_factory=list)

    async def describe(self, model: str) -> list[TensorDescription]:
        return self.inputs.get(model, [])

    def prepare(self, model: str, request: InferRequest, headers: Mapping[str, str]) -> object:
        return model, request, dict(headers)

    async def exchange(self, prepared: object, flight: Flight) -> None:
        self.sent.append(prepared)
        scripted = self.flight(len(self.sent) - 1, prepared)
        if isinstance(scripted, Exception):
            raise scripted
        for name in Flight.__slots__:
            setattr(flight, name, getattr(scripted, name))

    async def close(self) -> None: ...


def lost(reason: str) -> NoAnswer:
    return NoAnswer(reason)
