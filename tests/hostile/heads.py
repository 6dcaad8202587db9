"""Hostile headers of HTTP requests: huge, many, odd bytes, ambiguous lengths, slow; at HAProxy and at a replica's
door."""

import asyncio
from collections.abc import Callable

from tests.hostile.bodies import infer
from tests.hostile.http import exchange, head
from tests.hostile.inputs import MIB, REFUSED_HEAD, Address, Answer, Doors, Hostile, Send, words

KIND = "heads"
BODY = infer()
PATH = b"/v2/models/numbers/infer"
SMUGGLED = b"POST " + PATH + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
CONNECTIONS = 64


def at(door: Callable[[Doors], Address], *parts: bytes, pause_s: float = 0.0) -> Send:
    async def send(doors: Doors) -> Answer:
        return await exchange(door(doors), parts, pause_s=pause_s, ends=True)

    return send


def at_once(door: Callable[[Doors], Address], *parts: bytes, pause_s: float = 0.0) -> Send:
    """Returns a function that sends the same on many connections at once and returns the rarest answer."""

    async def send(doors: Doors) -> Answer:
        sent = (exchange(door(doors), parts, pause_s=pause_s, ends=True) for _ in range(CONNECTIONS))
        answers = await asyncio.gather(*sent)
        outcomes = [answer.what for answer in answers]
        return min(answers, key=lambda answer: outcomes.count(answer.what))

    return send


def corpus(size: int) -> list[Hostile]:
    doors: dict[str, Callable[[Doors], Address]] = {
        "": lambda doors: doors.http,
        " at a replica": lambda doors: doors.direct_http["numbers"],
    }
    return [
        Hostile(name + where, KIND, make(door, *parts), right)
        for where, door in doors.items()
        for name, (make, parts, right) in (_cases() | _slow()).items()
    ]


def _with(
    *lines: bytes, length: bytes | None = b"%d" % len(BODY), first: bytes = b"POST " + PATH + b" HTTP/1.1"
) -> bytes:
    given = [first, b"Host: localhost", *([] if length is None else [b"Content-Length: " + length]), *lines]
    return b"\r\n".join(given) + b"\r\n\r\n"


Case = tuple[Callable[..., Send], tuple[bytes, ...], frozenset[str]]


def _cases() -> dict[str, Case]:
    chunked = b"Transfer-Encoding: chunked"
    http2_preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)
    as_chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    refused: dict[str, tuple[bytes, ...]] = {
        "a header of a MiB": (_with(b"X-Long: " + b"x" * MIB), BODY),
        "a path of a MiB": (_with(first=b"POST /" + b"p" * MIB + b" HTTP/1.1"), BODY),
        "a method of 64 KiB": (_with(first=b"P" * 65536 + b" / HTTP/1.1"), BODY),
        "a head that never ends": (b"POST / HTTP/1.1\r\n" + b"X: y\r\n" * 100_000,),
        "headers, 20,000": (_with(*[b"X-%d: y" % number for number in range(20_000)]), BODY),
        "NUL in a header": (_with(b"X-Odd: a\0b"), BODY),
        "NUL in a path": (_with(first=b"POST " + PATH + b"\0 HTTP/1.1"), BODY),
        "a header without a colon": (_with(b"nothing here"), BODY),
        "a header without a name": (_with(b": value"), BODY),
        "a blank before the colon": (_with(b"X-Odd : value"), BODY),
        "blanks in a path": (_with(first=b"POST " + PATH + b" again HTTP/1.1"), BODY),
        "two lengths that differ": (_with(b"Content-Length: 5"), BODY),
        "lengths in one line": (_with(length=b"5, 6"), BODY),
        "a length and another in hexadecimal": (_with(length=b"0x10"), BODY),
        "a negative length": (_with(length=b"-5"), BODY),
        "a length of forty digits": (_with(length=b"9" * 40), BODY),
        "a length that is no number": (_with(length=b"many"), BODY),
        "another transfer encoding": (_with(b"Transfer-Encoding: xchunked", length=None), as_chunks),
        "a TLS greeting": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),),
    }  # fmt: skip
    # Headers that parsers may read in two ways, with a whole request after the body of one reading: one answer at most.
    ambiguous: dict[str, tuple[bytes, ...]] = {
        "a length and chunks": (_with(chunked, length=b"5"), b"0\r\n\r\n" + SMUGGLED),
        "chunks and a length": (_with(b"Content-Length: %d" % len(as_chunks), chunked, length=None), as_chunks),
        "chunked, twice": (_with(chunked, chunked, length=None), as_chunks),
        "chunked, but identity": (_with(b"Transfer-Encoding: chunked, identity", length=None), as_chunks + SMUGGLED),
        "chunked after a tab": (_with(b"Transfer-Encoding:\tchunked", length=b"5"), b"0\r\n\r\n" + SMUGGLED),
        "chunked in a folded line": (_with(b"Transfer-Encoding:\r\n chunked", length=b"5"), b"0\r\n\r\n" + SMUGGLED),
        "a length with a plus": (_with(length=b"+%d" % len(BODY)), BODY),
        "bare line feeds": (_with().replace(b"\r\n", b"\n"), BODY),
        "bare carriage returns": (_with(b"X: a\rTransfer-Encoding: chunked"), BODY),
        "empty lines in front, 100,000": (b"\r\n" * 100_000 + _with(), BODY),
        "a folded header": (_with(b"X-Odd: a\r\n b"), BODY),
        "bytes beyond ASCII": (_with(b"X-Odd: \xff\xfe\x80"), BODY),
        "an id of control characters": (_with(b"X-Request-Id: \x1b[31m\x07"), BODY),
        "two hosts": (_with(b"Host: elsewhere"), BODY),
        "another expectation": (_with(b"Expect: the-unexpected"), BODY),
        "a whole address as path": (_with(first=b"POST http://elsewhere" + PATH + b" HTTP/1.1"), BODY),
        "CONNECT": (_with(first=b"CONNECT localhost:22 HTTP/1.1", length=None),),
        "an upgrade to a websocket": (_with(b"Connection: Upgrade", b"Upgrade: websocket"), BODY),
        "two equal lengths": (_with(b"Content-Length: %d" % len(BODY)), BODY),
        "a version of nowhere": (_with(first=b"POST " + PATH + b" HTTP/9.9"), BODY),
    }  # fmt: skip
    # Unusual but valid requests: answered normally.
    served: dict[str, tuple[bytes, ...]] = {
        "an upgrade to h2c": (_with(b"Connection: Upgrade", b"Upgrade: h2c", b"HTTP2-Settings: A"), BODY),
        "continue, please": (_with(b"Expect: 100-continue"), BODY),
    }
    return {
        **{name: (at, parts, REFUSED_HEAD) for name, parts in refused.items()},
        **{name: (at, parts, words(REFUSED_HEAD, "200")) for name, parts in ambiguous.items()},
        **{name: (at, parts, words("200")) for name, parts in served.items()},
        "HTTP/2's preface": (at, (http2_preface,), words("400 bare", "no HTTP")),  # HAProxy supports it
        "HTTP/0.9": (at, (b"GET /\r\n\r\n",), words("400 bare", "404 bare")),
    }


def _slow() -> dict[str, Case]:
    """Returns slow requests. Each lasts only some seconds; the server's timeouts have their own tests."""
    slowly = tuple(bytes((byte,)) for byte in _with()[:40])

    def dripping(door: Callable[[Doors], Address], *parts: bytes) -> Send:
        return at_once(door, *parts, pause_s=0.05)

    def in_pieces(door: Callable[[Doors], Address], *parts: bytes) -> Send:
        return at(door, *parts, pause_s=0.05)

    def idle(door: Callable[[Doors], Address], *parts: bytes) -> Send:
        return at_once(door, *parts, pause_s=2.0)

    upgraded = (b"Connection: Upgrade", b"Upgrade: x")
    smuggling = _with(*upgraded, length=b"%d" % len(SMUGGLED))
    to_the_front = _with(*upgraded, length=b"%d" % len(SMUGGLED), first=b"POST /v2/repository/index HTTP/1.1")
    return {
        # The body comes later than the headers: which bytes are read as the body, and which as the next request?
        "an upgrade with a request for a body": (in_pieces, (smuggling, SMUGGLED), words("400")),
        "an upgrade with a request for a body, to the front": (
            in_pieces,
            (to_the_front, SMUGGLED),
            words("400", "404 bare"),
        ),
        "heads that drip": (dripping, slowly, words("closed", "400 bare")),
        "bodies that drip": (dripping, (head("numbers", 10_000), *slowly), words("closed", "400 bare")),
        "connections that say nothing": (idle, (b"",), words("closed", "400 bare")),
        "requests sent ahead, and nobody reads": (at, (SMUGGLED * 2000,), words("two answers")),
    }
