"""Hostile messages of gRPC: a second one, wrong prefixes and encodings, undecodable ones, and very many of any item.

They are sent to HAProxy, as by clients, and to the fast door, among well-behaved calls on the same connection, none of
which may be lost.
"""

import asyncio
import gzip
import zlib
from collections.abc import Awaitable, Callable
from functools import cache, partial

from serving.protocol import http2
from serving.protocol.pb import SERVICE, message
from tests.hostile.http2 import INFER, STREAM, Peer, good, infer_message, prefixed
from tests.hostile.inputs import MIB, Address, Answer, Doors, Hostile, Send, always, seeded, words

KIND = "messages"
NEIGHBOURS = 8
# HAProxy ends the connection of a client whose headers do not fit; only that client uses it.
OVERSIZED = ("a thousand headers", "headers over 64 KiB")
ALL_LOST = f"{NEIGHBOURS + 1} neighbours lost"
INVALID = words("INVALID_ARGUMENT")
LARGE = words("RESOURCE_EXHAUSTED")
SECOND, UNKNOWN = words("UNIMPLEMENTED"), words("UNIMPLEMENTED")
UNREADABLE = words("INTERNAL")  # the status in gRPC's specification for data that cannot be decompressed
FINE = words("OK")
Ask = Callable[[Peer], Awaitable[Answer]]


def corpus(size: int) -> list[Hostile]:
    cases = {**_framed(), **_undecodable(), **_many(size), **_headers(), **_deadlines(), **_streams()}
    doors: dict[str, Callable[[Doors], Address]] = {
        "": lambda doors: doors.grpc,
        " at the fast door": lambda doors: doors.fast["numbers"],
    }
    return [
        Hostile(
            name + where, KIND, among_others(door, ask), words(right, ALL_LOST) if oversized(name, where) else right
        )
        for where, door in doors.items()
        for name, (ask, right) in cases.items()
    ]


def oversized(name: str, where: str) -> bool:
    return name in OVERSIZED and not where


def among_others(door: Callable[[Doors], Address], ask: Ask) -> Send:
    """Returns a function that makes the call on a connection with other calls in flight before and after it."""

    async def send(doors: Doors) -> Answer:
        async with Peer(door(doors)) as peer:
            before = [peer.fresh() for _ in range(NEIGHBOURS)]
            for id in before:
                await peer.send(peer.headers(id) + http2.frame(http2.DATA, 0, id, good()[:9]))
            own = await ask(peer)
            for id in before:
                await peer.send(http2.frame(http2.DATA, http2.END_STREAM, id, good()[9:]))
            others = [await peer.outcome(id) for id in before] + [await peer.call(good())]
            lost = [answer for answer in others if answer.what != "OK"]
            if lost:
                return Answer(f"{len(lost)} neighbours lost", f"{lost[0]}; itself: {own}")
            return own

    return send


Cases = dict[str, tuple[Ask, frozenset[str]]]


@cache
def bomb() -> bytes:
    """Returns a compressed message of 256 MiB of zeros."""
    zeros = zlib.compressobj(6, zlib.DEFLATED, 31)
    return prefixed(b"".join([zeros.compress(bytes(MIB)) for _ in range(256)]) + zeros.flush(), compressed=1)


def asked(make: Callable[[], bytes], path: str = "", **headers: str) -> Ask:
    async def ask(peer: Peer) -> Answer:
        return await peer.call(make(), **({"path": path} if path else {}), **headers)

    return ask


def _framed() -> Cases:
    one = good()
    compressed = prefixed(gzip.compress(infer_message(), mtime=0), compressed=1)
    data = {
        "a second message": (one + one, SECOND),
        "a byte after the message": (one + b"\0", SECOND),
        "a second message that is too large": (one + prefixed(b"", size=2**31), SECOND),
        "a second message that is undecodable": (one + prefixed(b"\xff\xff"), SECOND),
        "a second message with an unknown flag": (one + prefixed(b"", compressed=9), SECOND),
        "a hundred messages": (one * 100, SECOND),
        "no message": (b"", INVALID),
        "half a prefix": (one[:3], INVALID),
        "half a message": (one[:-4], INVALID),
        "a message of 2 GiB, announced": (prefixed(b"", size=2**31), LARGE),
        "a message of 4 GiB, announced": (prefixed(b"xx", size=2**32 - 1), LARGE),
        "compressed without a coding": (prefixed(infer_message(), compressed=1), UNREADABLE),
        "a flag of 255": (prefixed(infer_message(), compressed=255), UNREADABLE),
    }
    coded = {
        "compressed by what is not known": (compressed, "zstd"),
        "compressed by identity": (compressed, "identity"),
        "compressed and cut off": (prefixed(compressed[5:-9], compressed=1), "gzip"),
        "compressed rubbish": (prefixed(seeded("gzip").randbytes(100), compressed=1), "gzip"),
        "many empty gzip members": (prefixed(gzip.compress(b"", mtime=0) * 40_000, compressed=1), "gzip"),
        "compressed nothing": (prefixed(b"", compressed=1), "gzip"),
    }

    async def bombs_together(peer: Peer) -> Answer:
        calls = (peer.call(bomb(), grpc_encoding="gzip") for _ in range(8))
        answers = {answer.what: answer for answer in await asyncio.gather(*calls)}
        return next(iter(answers.values())) if len(answers) == 1 else Answer(", ".join(sorted(answers)))

    return {
        **{name: (asked(always(content)), right) for name, (content, right) in data.items()},
        **{
            name: (asked(always(content), grpc_encoding=coding), UNKNOWN if coding == "zstd" else UNREADABLE)
            for name, (content, coding) in coded.items()
        },
        "a bomb of 256 MiB": (asked(bomb, grpc_encoding="gzip"), LARGE),
        "eight bombs together": (bombs_together, LARGE),
    }


def _undecodable() -> Cases:
    noise = seeded("protobuf")
    whole = infer_message()
    request = message("ModelInferRequest")(model_name="numbers")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    no_data = request.SerializeToString()
    request.raw_input_contents.extend([bytes(8), bytes(8)])
    two_contents = request.SerializeToString()
    request.inputs[0].contents.fp32_contents.extend([1.0, 2.0])
    both = request.SerializeToString()
    data = {
        "rubbish": noise.randbytes(1000),
        "a message cut in half": whole[: len(whole) // 2],
        "a field that is longer than the message": b"\x0a\xff\xff\xff\x7fnumbers",
        "a varint without end": b"\x0a" + b"\xff" * 20,
        "a group that is never closed": b"\x0b" * 100_000,
        "field number 0": b"\x00\x01",
        "a wrong wire type for the name": b"\x08\x01",
        "a model's name that is no UTF-8": b"\x0a\x03\xff\xfe\xfd" + whole[9:],
        "a shape cut off": whole + b"\x2a\x04\x1a\x02\xff\xff",
        "an input without data": no_data,
        "more data than inputs": two_contents,
        "data in both places": both,
    }
    nameless = {
        "no model": b"\x0a\x00" + whole[9:],
        "a model that is not there": infer_message(model="nowhere"),
        "a model's name with a slash and NUL": infer_message(model="../numbers\0"),
    }
    data |= {"a model's name of a MiB": infer_message(model="m" * MIB), "an empty message": b""}
    groups = ((data, INVALID), (nameless, words("NOT_FOUND")))
    return {
        name: (asked(always(prefixed(content))), right) for cases, right in groups for name, content in cases.items()
    }


def _many(size: int) -> Cases:
    """Returns messages with very many items that take two bytes each on the wire."""
    name = infer_message()[:9]
    fields = {"inputs": 0x2A, "outputs": 0x32, "raw contents": 0x3A, "parameters": 0x22, "versions": 0x12, "ids": 0x1A}
    named = b"\x2a\x03\x0a\x01x"
    one = message("ModelInferRequest")(model_name="numbers")
    one.inputs.add(name="x", datatype="FP32", shape=[1] * 100_000)
    many_dimensions = one.SerializeToString()

    def empty(tag: int) -> bytes:
        """Returns a message with very many empty fields with this tag."""
        return prefixed(name + bytes((tag, 0)) * (size // 2))

    def contents() -> bytes:
        """Returns a message with more numbers in its own field than the shape has."""
        request = message("ModelInferRequest")(model_name="numbers")
        tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, size // 4])
        tensor.contents.ParseFromString(b"\x32" + _varint(size // 4 * 4) + bytes(size // 4 * 4))
        return bytes(request.SerializeToString())

    return {
        **{f"many empty {what}": (asked(partial(empty, tag)), INVALID) for what, tag in fields.items()},
        "many inputs of the same name": (asked(lambda: prefixed(name + named * (size // 5))), INVALID),
        "100,000 dimensions": (asked(lambda: prefixed(many_dimensions)), INVALID),
        "numbers in the message's own field": (asked(lambda: prefixed(contents())), FINE),
        "unknown fields": (asked(lambda: prefixed(infer_message() + b"\xf8\x07\x01" * (size // 3))), INVALID),
        "just what fits, of nothing": (asked(lambda: prefixed(name + b"\x3a" + _varint(size) + bytes(size))), INVALID),
    }


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*encoded, value))


def _headers() -> Cases:
    unknown = {
        "a path that is none": {"path": "/"},
        "a method that is none": {"path": f"/{SERVICE}/Nothing"},
        "a service that is none": {"path": "/nothing.Nothing/ModelInfer"},
        "a path of 30 KB": {"path": "/" + "p" * 30_000},
        "another content type": {"content_type": "text/html"},
        "GET": {"method": "GET"},
    }
    timeouts = {
        "a timeout that is none": {"grpc_timeout": "soon"},
        "a negative timeout": {"grpc_timeout": "-1S"},
        "a timeout without a unit": {"grpc_timeout": "10"},
        "a timeout of 30 digits": {"grpc_timeout": "9" * 30 + "S"},
        "a timeout in other digits": {"grpc_timeout": "\u0661S"},
    }
    harmless = {
        "an id of control characters": {"x_request_id": "\x1b[31m"},
        "an id of 8 KB": {"x_request_id": "i" * 8000},
        "binary metadata that is no base64": {"odd_bin": "!!!"},
        "a thousand headers": {f"x-{number}": "y" for number in range(1000)},
    }

    async def long_headers(peer: Peer) -> Answer:
        """Sends over 64 KiB of headers, in one block with its continuations."""
        id = peer.fresh()
        more = {f"x-{number}": "y" * 8000 for number in range(9)}
        block = peer.headers(id, INFER, http2.END_HEADERS, **more)[http2.FRAME_BYTES :]
        pieces = [block[start : start + http2.SMALLEST_MAX_FRAME] for start in range(0, len(block), 16_384)]
        await peer.send(http2.frame(http2.HEADERS, 0, id, pieces[0]))
        for piece in pieces[1:-1]:
            await peer.send(http2.frame(http2.CONTINUATION, 0, id, piece))
        await peer.send(http2.frame(http2.CONTINUATION, http2.END_HEADERS, id, pieces[-1]))
        await peer.upload(id, good())
        return await peer.outcome(id)

    return {
        **{name: (asked(good, **headers), UNKNOWN) for name, headers in unknown.items()},
        **{name: (asked(good, **headers), INVALID) for name, headers in timeouts.items()},
        **{name: (asked(good, **headers), FINE) for name, headers in harmless.items()},
        "headers over 64 KiB": (long_headers, LARGE),
    }


def _deadlines() -> Cases:
    late, in_time = words("DEADLINE_EXCEEDED"), FINE
    timeouts = {"0n": late, "1n": late, "1u": words(late, in_time), "99999999H": in_time, "00000010S": in_time}
    return {f"a timeout of {value}": (asked(good, grpc_timeout=value), right) for value, right in timeouts.items()}


def _streams() -> Cases:
    def streamed(*messages: bytes, count: int = 1) -> Ask:
        return asked(lambda: b"".join(map(prefixed, messages)) * count, STREAM)

    async def left(peer: Peer) -> Answer:
        """Opens a hundred streams, sends one request on each, and resets them."""
        for _ in range(100):
            id = peer.fresh()
            await peer.send(peer.headers(id, STREAM))
            await peer.upload(id, good(), flags=0)
            await peer.send(http2.reset(id, http2.CANCEL))
        return Answer("left")

    return {
        "a stream of 2,000 messages": (streamed(infer_message(), count=2000), FINE),
        "an undecodable message in a stream": (streamed(infer_message(), b"\xff"), FINE),
        "a stream of undecodable messages": (streamed(b"\xff", count=500), FINE),
        "a stream to models that are not there": (
            streamed(*(infer_message(model=f"m{n}") for n in range(50))), FINE,
        ),
        "a stream of nothing": (asked(lambda: b"", STREAM), FINE),
        "streams begun and reset": (left, words("left")),
    }  # fmt: skip
