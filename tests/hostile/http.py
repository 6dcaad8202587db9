"""A client of HTTP/1.1 that writes bytes as they are, well formed or not, and reads the answer."""

import asyncio
import contextlib
import json
from collections.abc import Iterable, Mapping

from tests.hostile.inputs import MIB, Address, Answer

HEAD_END = b"\r\n\r\n"
LINGER_S = 0.3  # the time in which bytes that were read as another request would be answered
SILENCE_S = 5.0


def head(model: str, length: int | None, more: Mapping[str, str] | None = None, path: str = "") -> bytes:
    """Returns the headers of an infer request. length: None for no Content-Length."""
    lines = [f"POST {path or f'/v2/models/{model}/infer'} HTTP/1.1", "Host: localhost"]
    lines += [] if length is None else [f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in (more or {}).items()]
    return "\r\n".join(lines).encode("latin-1") + HEAD_END


async def post(address: Address, model: str, body: bytes, **headers: str) -> Answer:
    """Returns one infer request. headers: names are written with _ for -."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return await exchange(address, [head(model, len(body), more), body])


async def exchange(address: Address, parts: Iterable[bytes], *, pause_s: float = 0.0, ends: bool = False) -> Answer:
    """Writes the parts, reads meanwhile, and returns the answer. ends: half-closes the connection some time after the
    last part; until the server closes, looks for a second answer."""
    reader, writer = await asyncio.open_connection(*address)
    writing = asyncio.create_task(_write(writer, parts, pause_s, ends))
    try:
        answer = await _answer(reader)
        second = await _second(reader) if ends and answer.what != "closed" else ""
        return Answer("two answers", second) if second else answer
    finally:
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await writing
        writer.transport.abort()


async def _write(writer: asyncio.StreamWriter, parts: Iterable[bytes], pause_s: float, ends: bool) -> None:
    for part in parts:
        for start in range(0, len(part), MIB):
            writer.write(part[start : start + MIB])
            await writer.drain()
        if pause_s:
            await asyncio.sleep(pause_s)
    if ends:
        await asyncio.sleep(LINGER_S)
        writer.write_eof()


async def _answer(reader: asyncio.StreamReader) -> Answer:
    try:
        lines = await reader.readuntil(HEAD_END)
        while lines.startswith(b"HTTP/1.1 1"):  # 100 Continue
            lines = await reader.readuntil(HEAD_END)
    except asyncio.IncompleteReadError as error:
        return Answer("closed") if not error.partial else Answer("no HTTP", repr(error.partial[:80]))
    except OSError:
        return Answer("closed")
    status = lines.split(b" ", 2)[1].decode("latin-1")
    if b"\r\ntransfer-encoding: chunked" in lines.lower():
        return _judged(status, await _rest(reader))
    length = next((line for line in lines.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
    try:
        content = await reader.readexactly(int(length.split(b":")[1]))
    except (asyncio.IncompleteReadError, ConnectionError):
        return Answer(f"{status} cut off")
    return _judged(status, content)


async def _rest(reader: asyncio.StreamReader) -> bytes:
    """Reads until the server closes or sends nothing for a while."""
    parts: list[bytes] = []
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(0.2):
            while part := await reader.read(MIB):
                parts.append(part)
    return b"".join(parts)


async def _second(reader: asyncio.StreamReader) -> str:
    """Returns the beginning of a second answer to one request; "" if the server closes without one or stays silent."""
    try:
        async with asyncio.timeout(SILENCE_S):
            return (await reader.read(100)).decode("latin-1")
    except (TimeoutError, ConnectionError):
        return ""


def _judged(status: str, content: bytes) -> Answer:
    if status == "200":
        return Answer(status)
    try:
        text = json.loads(content)["error"]
    except (ValueError, KeyError, TypeError):
        return Answer(f"{status} bare", content[:200].decode("latin-1"))
    if "Traceback" in text or text == "internal error":
        return Answer(f"{status} unexplained", text)
    return Answer(status, text)
