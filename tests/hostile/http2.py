"""A client of HTTP/2 that writes frames as they are, well formed or not, and records the frames of its streams."""

import asyncio
import contextlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

import grpc
from hpack import Decoder, Encoder

from serving.protocol import http2
from serving.protocol.pb import SERVICE, message
from tests.hostile.inputs import MIB, Address, Answer

STATUS = {code.value[0]: code.name for code in grpc.StatusCode}
END = http2.END_STREAM | http2.END_HEADERS
INFER = f"/{SERVICE}/ModelInfer"
STREAM = f"/{SERVICE}/ModelStreamInfer"
OUR_WINDOW = 2**31 - 1


@dataclass(slots=True)
class Received:
    """The frames stream on one stream."""

    headers: dict[str, str] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    is_over: asyncio.Event = field(default_factory=asyncio.Event)
    reset: int | None = None


class Peer:
    """One connection, used in an `async with`. It does not check what it sends. reads: False for a client that never
    reads. introduces: whether it sends the preface and settings first."""

    def __init__(self, address: Address, *, reads: bool = True, introduces: bool = True) -> None:
        self._address, self._reads, self._introduces = address, reads, introduces
        self._streams: dict[int, Received] = {}
        self._credit = {0: http2.DEFAULT_WINDOW}
        self._initial = http2.DEFAULT_WINDOW
        self.max_frame = http2.SMALLEST_MAX_FRAME  # the largest frame that the server accepts
        self._more_credit = asyncio.Event()
        self._encoder, self._decoder = Encoder(), Decoder(max_header_list_size=MIB)
        self._next = 1
        self.ended = asyncio.Event()
        self.goaway: int | None = None

    async def __aenter__(self) -> Self:
        reader, self._writer = await asyncio.open_connection(*self._address, limit=MIB)
        self._reading = asyncio.create_task(self._read(reader) if self._reads else asyncio.sleep(0))
        if self._introduces:
            own = http2.settings([(http2.INITIAL_WINDOW_SIZE, OUR_WINDOW)])
            room = http2.window_update(0, OUR_WINDOW - http2.DEFAULT_WINDOW)
            await self.send(http2.PREFACE + own + room)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.transport.abort()
        self._reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading

    async def send(self, data: bytes, piece: int = MIB) -> None:
        """Writes bytes as they are; does nothing once the server has closed."""
        for start in range(0, len(data), piece):
            if self.ended.is_set():
                return
            self._writer.write(data[start : start + piece])
            try:
                await self._writer.drain()
            except ConnectionError:
                self.ended.set()

    # -- calls ------------------------------------------------------------------------------------------------

    def fresh(self) -> int:
        """Returns the id of a new stream."""
        self._next += 2
        self._streams[self._next - 2] = Received()
        return self._next - 2

    def headers(self, id: int, path: str = INFER, flags: int = http2.END_HEADERS, **more: str) -> bytes:
        named = {name.replace("_", "-"): value for name, value in more.items()}
        pseudo = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost"}
        usual = {"content-type": "application/grpc", "te": "trailers"}
        for name in [name for name in named if f":{name}" in pseudo]:
            pseudo[f":{name}"] = named.pop(name)
        block = self._encoder.encode([*pseudo.items(), *(usual | named).items()])
        return http2.frame(http2.HEADERS, flags, id, block)

    async def call(self, data: bytes, path: str = INFER, **headers: str) -> Answer:
        """Makes a call with this data, whose messages have their prefixes already. Keeps within the server's
        windows."""
        id = self.fresh()
        await self.send(self.headers(id, path, http2.END_HEADERS, **headers))
        await self.upload(id, data)
        return await self.outcome(id)

    async def upload(self, id: int, data: bytes, flags: int = http2.END_STREAM) -> None:
        self._credit.setdefault(id, self._initial)
        start = 0
        while start < len(data) and not self._streams[id].is_over.is_set() and not self.ended.is_set():
            size = min(len(data) - start, http2.SMALLEST_MAX_FRAME, self._credit[0], self._credit[id])
            if size <= 0:
                self._more_credit.clear()
                await self._more_credit.wait()
                continue
            last = flags if start + size == len(data) else 0
            await self.send(http2.frame(http2.DATA, last, id, data[start : start + size]))
            self._credit[0] -= size
            self._credit[id] -= size
            start += size
        if not data:
            await self.send(http2.frame(http2.DATA, flags, id))

    async def outcome(self, id: int) -> Answer:
        """Waits for the end of a stream and returns it as an answer."""
        stream = self._streams[id]
        over, ended = asyncio.create_task(stream.is_over.wait()), asyncio.create_task(self.ended.wait())
        try:
            await asyncio.wait((over, ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            ended.cancel()
        if not stream.is_over.is_set():
            return Answer("closed")
        if "grpc-status" not in stream.headers:
            return Answer("reset" if stream.reset is not None else f"no status, HTTP {stream.headers.get(':status')}")
        what, text = STATUS[int(stream.headers["grpc-status"])], stream.headers.get("grpc-message", "")
        unexplained = "Traceback" in text or text == "internal error"
        return Answer(f"{what} unexplained" if unexplained else what, text)

    async def after(self) -> Answer:
        """Returns the state of the connection: "served" if a well-behaved call is still answered right on it, "goaway"
        or "closed"."""
        if not self.ended.is_set() and self.goaway is None:
            self._next = 2**20 + 1  # beyond all streams that the input has opened
            answer = await self.call(good())
            if answer.what != "closed" and self.goaway is None:
                return Answer("served" if answer.what == "OK" else f"not served: {answer.what}", answer.text)
        return Answer("goaway" if self.goaway is not None else "closed", f"code {self.goaway}")

    # -- receiving --------------------------------------------------------------------------------------------

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                size, kind, flags, id = http2.read_frame_head(await reader.readexactly(http2.FRAME_BYTES), 0)
                await self._take(kind, flags, id, await reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.ended.set()
            self._more_credit.set()

    async def _take(self, kind: int, flags: int, id: int, payload: bytes) -> None:
        stream = self._streams.get(id, Received())
        if kind == http2.HEADERS:
            stream.headers |= {str(name): str(value) for name, value in self._decoder.decode(payload)}
        elif kind == http2.DATA:
            stream.data += payload
            if len(payload):
                await self.send(http2.window_update(0, len(payload)))
        elif kind == http2.RST_STREAM:
            stream.reset = http2.number(payload)
        elif kind == http2.GOAWAY:
            self.goaway = struct.unpack_from(">I", payload, 4)[0]
        elif kind == http2.WINDOW_UPDATE:
            self._credit[id] = self._credit.get(id, self._initial) + http2.number(payload)
        elif kind == http2.SETTINGS and not flags & http2.ACK:
            self._change(dict(http2.read_settings(payload)))
            await self.send(http2.frame(http2.SETTINGS, http2.ACK, 0))
        if kind == http2.RST_STREAM or (kind in (http2.HEADERS, http2.DATA) and flags & http2.END_STREAM):
            stream.is_over.set()
        self._more_credit.set()

    def _change(self, settings: dict[int, int]) -> None:
        if (size := settings.get(http2.HEADER_TABLE_SIZE)) is not None:
            self._encoder.header_table_size = min(size, 4096)
        self.max_frame = settings.get(http2.MAX_FRAME_SIZE, self.max_frame)
        if (size := settings.get(http2.INITIAL_WINDOW_SIZE)) is not None:
            for id in self._credit.keys() - {0}:
                self._credit[id] += size - self._initial
            self._initial = size


def prefixed(content: bytes, *, compressed: int = 0, size: int | None = None) -> bytes:
    """Returns one message of a call with its prefix. size: the size in the prefix, if it is to be false."""
    return struct.pack(">BI", compressed, len(content) if size is None else size) + content


def infer_message(model: str = "numbers", values: Iterable[float] = (1.0, 2.0), **more: object) -> bytes:
    """Returns an infer request for a model. more: further fields of the message, such as `inputs`."""
    given = list(values)
    request = message("ModelInferRequest")(model_name=model, **more)
    if not request.inputs:
        request.inputs.add(name="x", datatype="FP32", shape=[1, len(given)])
        request.raw_input_contents.append(struct.pack(f"<{len(given)}f", *given))
    content: bytes = request.SerializeToString()
    return content


def good() -> bytes:
    return prefixed(infer_message())
