"""Hostile frames of HTTP/2 at the fast door: floods, windows, header blocks, and bytes that are no HTTP/2. Each input
uses a connection of its own. Afterwards the connection still serves calls, or the server has ended it."""

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable

from hpack import Encoder

from serving.protocol import http2
from serving.protocol.http2 import frame
from tests.hostile.http2 import END, INFER, STREAM, Peer, good, infer_message, prefixed
from tests.hostile.inputs import ENDED, MIB, Answer, Doors, Hostile, Send, seeded, words

KIND = "frames"
SERVED = words("served")
MANY = 20_000
LARGEST = b"\x7f\xff\xff\xff"
Attack = Callable[[Peer], Awaitable[None]]


def attacked(attack: Attack, *, introduces: bool = True, reads: bool = True) -> Send:
    async def send(doors: Doors) -> Answer:
        async with Peer(doors.fast["numbers"], introduces=introduces, reads=reads) as peer:
            await attack(peer)
            return await peer.after() if reads else Answer("closed" if peer.ended.is_set() else "open")

    return send


def sent(*frames: bytes) -> Attack:
    async def attack(peer: Peer) -> None:
        for one in frames:
            await peer.send(one)

    return attack


def corpus(size: int) -> list[Hostile]:
    named = {**_floods(), **_windows(), **_heads(), **_frames()}
    return [
        *(Hostile(name, KIND, attacked(attack), right) for name, (attack, right) in named.items()),
        *(
            Hostile(name, KIND, attacked(sent(data), introduces=False), ENDED)
            for name, data in _prefaces().items()
        ),
        *(
            Hostile(name, KIND, attacked(attack, reads=False), words("closed"))
            for name, attack in _deaf().items()
        ),
    ]  # fmt: skip


Named = dict[str, tuple[Attack, frozenset[str]]]


def _opened(count: int, then: Callable[[], bytes]) -> Attack:
    """Returns an attack that opens `count` calls that wait for more, then sends the frames of `then`."""

    async def attack(peer: Peer) -> None:
        await peer.send(b"".join(peer.headers(peer.fresh()) for _ in range(count)))
        await peer.send(then())

    return attack


def _floods() -> Named:
    async def resets(peer: Peer) -> None:
        for _ in range(MANY // 100):
            ids = [peer.fresh() for _ in range(100)]
            await peer.send(b"".join(peer.headers(id) + http2.reset(id, http2.CANCEL) for id in ids))

    async def resets_of_calls(peer: Peer) -> None:
        for _ in range(MANY // 400):
            ids = [peer.fresh() for _ in range(100)]
            data = good()
            asked = (peer.headers(id) + frame(http2.DATA, http2.END_STREAM, id, data) for id in ids)
            await peer.send(b"".join(one + http2.reset(id, http2.CANCEL) for one, id in zip(asked, ids, strict=True)))

    async def provoked_resets(peer: Peer) -> None:
        """Provokes a reset by the server on each stream: resets that the server sends count as well."""
        for _ in range(MANY // 100):
            ids = [peer.fresh() for _ in range(100)]
            await peer.send(b"".join(peer.headers(id) + http2.window_update(id, 0) for id in ids))

    async def empty_data(peer: Peer) -> None:
        id = peer.fresh()
        await peer.send(peer.headers(id) + frame(http2.DATA, 0, id) * (5 * MANY))

    async def padding_only(peer: Peer) -> None:
        id = peer.fresh()
        await peer.send(peer.headers(id) + frame(http2.DATA, http2.PADDED, id, b"\xff" + bytes(255)) * MANY)

    async def byte_by_byte(peer: Peer) -> None:
        id = peer.fresh()
        await peer.send(peer.headers(id) + b"".join(frame(http2.DATA, 0, id, b"%c" % byte) for byte in good() * 200))

    async def endless_calls(peer: Peer) -> None:
        await peer.send(b"".join(peer.headers(peer.fresh()) for _ in range(MANY)))

    async def streams_without_end(peer: Peer) -> None:
        await peer.send(b"".join(peer.headers(peer.fresh(), STREAM) for _ in range(MANY // 10)))

    def windows() -> bytes:
        sizes = [(http2.INITIAL_WINDOW_SIZE, 65535 + number % 2) for number in range(2700)]
        return http2.settings(sizes)

    plain = {
        "SETTINGS": http2.settings([(http2.HEADER_TABLE_SIZE, 4096)]) * MANY,
        "empty SETTINGS": frame(http2.SETTINGS, 0, 0) * (5 * MANY),
        "SETTINGS acknowledged again and again": frame(http2.SETTINGS, http2.ACK, 0) * (5 * MANY),
        "PING": frame(http2.PING, 0, 0, b"12345678") * (5 * MANY),
        "PRIORITY": frame(http2.PRIORITY, 0, 1, bytes(5)) * (5 * MANY),
        "WINDOW_UPDATE": http2.window_update(0, 1) * (5 * MANY),
        "GOAWAY": http2.goaway(0, 0) * MANY,
        "unknown frames": frame(77, 0, 0, b"x" * 100) * MANY,
    }
    return {f"a flood of {name}": (sent(data), ENDED) for name, data in plain.items()} | {
        "SETTINGS of 16 KB, 100 times": (sent(http2.settings([(9999, 1)] * 2700) * 100), SERVED),
        "SETTINGS of 120 KB with 1,000 calls begun": (
            _opened(1000, lambda: frame(http2.SETTINGS, 0, 0, struct.pack(">HI", 4, 65536) * 20_000)),
            SERVED,
        ),
        "windows changed 2,700 times with 1,000 calls begun": (_opened(1000, windows), SERVED),
        "windows changed 270,000 times with 1,000 calls begun": (
            _opened(1000, lambda: windows() * 100),
            SERVED,
        ),
        "calls begun and reset": (resets, ENDED),
        "calls made and reset": (resets_of_calls, SERVED),
        "calls that the server has to reset": (provoked_resets, SERVED),
        "a flood of empty DATA": (empty_data, ENDED),
        "a flood of padding": (padding_only, ENDED),
        "calls a byte a frame": (byte_by_byte, SERVED),
        "calls begun and left": (endless_calls, words("not served: reset")),
        "streams begun and left": (streams_without_end, words("not served: reset")),
    }


def _windows() -> Named:
    async def beyond_the_window(peer: Peer) -> None:
        """Sends more than the server's window allows, in a message that never ends."""
        for _ in range(4):
            id = peer.fresh()
            await peer.send(peer.headers(id) + frame(http2.DATA, 0, id, prefixed(b"", size=MIB)))
            await peer.send(frame(http2.DATA, 0, id, bytes(http2.SMALLEST_MAX_FRAME)) * 6000)

    async def overflow_of_a_call(peer: Peer) -> None:
        id = peer.fresh()
        await peer.send(peer.headers(id) + frame(http2.WINDOW_UPDATE, 0, id, LARGEST) * 2)

    async def overflow_by_settings(peer: Peer) -> None:
        id = peer.fresh()
        await peer.send(peer.headers(id) + frame(http2.WINDOW_UPDATE, 0, id, b"\x7f\xff\0\0"))
        await peer.send(http2.settings([(http2.INITIAL_WINDOW_SIZE, 2**31 - 1)]))

    return {
        "credit beyond 31 bits": (sent(frame(http2.WINDOW_UPDATE, 0, 0, LARGEST) * 3), ENDED),
        "credit of nothing": (sent(http2.window_update(0, 0)), ENDED),
        "a call's credit beyond 31 bits": (overflow_of_a_call, SERVED),
        "a window beyond 31 bits": (sent(http2.settings([(http2.INITIAL_WINDOW_SIZE, 2**31)])), ENDED),
        "a call's window pushed beyond 31 bits": (overflow_by_settings, SERVED),
        "more than the windows allow": (beyond_the_window, ENDED),
    }


def _heads() -> Named:
    def block(*more: tuple[str, str], encoder: Encoder | None = None) -> bytes:
        usual = [(":method", "POST"), (":scheme", "http"), (":path", INFER), (":authority", "x")]
        made: bytes = (encoder or Encoder()).encode([*usual, ("content-type", "application/grpc"), *more])
        return made

    def begun(*payloads: bytes, count: int = 1) -> Attack:
        first = frame(http2.HEADERS, 0, 1, payloads[0])
        return sent(first, b"".join(frame(http2.CONTINUATION, 0, 1, one) for one in payloads[1:]) * count)

    # Added to the table once, then referenced again and again with one byte each: 4 KB per byte.
    entry = b"\x40\x01a\x7f\xa1\x1e" + b"v" * 4000
    bomb = entry + b"\xbe" * 16_000

    async def many_bombs(peer: Peer) -> None:
        for id in range(1, 200, 2):
            await peer.send(frame(http2.HEADERS, END, id, (entry if id == 1 else b"") + b"\xbe" * 12_000))

    long_name = block(("x" * 8000, "y"))
    return {
        "a header block that never ends, empty": (begun(block(), b"", count=5 * MANY), ENDED),
        "a header block that never ends, full": (begun(block(), b"\0\1a\1b" * 3000, count=400), ENDED),
        "a header block cut by another frame": (
            sent(frame(http2.HEADERS, 0, 1, block()), frame(http2.PING, 0, 0, bytes(8))), ENDED,
        ),
        "one entry of the table, 16,000 times": (sent(frame(http2.HEADERS, END, 1, bomb[:16_384])), ENDED),
        "one entry of the table, a million times": (many_bombs, ENDED),
        "an entry that is not in the table": (sent(frame(http2.HEADERS, END, 1, b"\xfe")), ENDED),
        "a number without end": (sent(frame(http2.HEADERS, END, 1, b"\xff" + b"\xff" * 1000)), ENDED),
        "a table of 4 GB": (sent(frame(http2.HEADERS, END, 1, b"\x3f\xe1\xff\xff\xff\x0f" + block())), ENDED),
        "a string longer than its block": (sent(frame(http2.HEADERS, END, 1, b"\0\x7f\x80\x01a")), ENDED),
        "Huffman's code in no padding": (sent(frame(http2.HEADERS, END, 1, b"\0\x84\xff\xff\xff\xff\x01a")), ENDED),
        "a header name of 8 KB": (sent(frame(http2.HEADERS, END, 1, long_name)), SERVED),
        "no headers at all": (sent(frame(http2.HEADERS, END, 1, b"")), SERVED),
        "distinct heads, 2,000": (
            sent(*(frame(http2.HEADERS, END, 2 * n + 1, block(("x-id", f"{n:05}" * 300))) for n in range(2000))),
            SERVED,
        ),
    }  # fmt: skip


def _frames() -> Named:
    noise = seeded("frames")

    def rubbish(count: int) -> bytes:
        kinds = ((noise.randrange(10), noise.randrange(256), noise.randrange(9)) for _ in range(count))
        return b"".join(frame(*one, noise.randbytes(noise.randrange(64))) for one in kinds)

    begun = Peer(("", 0)).headers(1)
    broken = {
        "DATA on no stream": frame(http2.DATA, 0, 0, b"x"),
        "DATA on a stream that was never begun": frame(http2.DATA, 0, 7, b"x"),
        "HEADERS of an even stream": frame(http2.HEADERS, END, 2, begun[9:]),
        "HEADERS of no stream": frame(http2.HEADERS, END, 0, begun[9:]),
        "HEADERS of a lower stream": frame(http2.HEADERS, END, 9, begun[9:]) + frame(http2.HEADERS, END, 3, begun[9:]),
        "PUSH_PROMISE from a client": frame(http2.PUSH_PROMISE, http2.END_HEADERS, 1, bytes(4) + begun[9:]),
        "a frame of 16 MB": http2.frame_head(http2.DATA, 0, 1, 2**24 - 1) + bytes(MIB),
        "more padding than frame": begun + frame(http2.DATA, http2.PADDED, 1, b"\xff"),
        "a PING of 7 bytes": frame(http2.PING, 0, 0, bytes(7)),
        "a PING on a stream": frame(http2.PING, 0, 1, bytes(8)),
        "SETTINGS of 5 bytes": frame(http2.SETTINGS, 0, 0, bytes(5)),
        "SETTINGS on a stream": frame(http2.SETTINGS, 0, 1, b""),
        "SETTINGS acknowledged with content": frame(http2.SETTINGS, http2.ACK, 0, bytes(6)),
        "a largest frame of nothing": http2.settings([(http2.MAX_FRAME_SIZE, 0)]),
        "a push switched half on": http2.settings([(2, 7)]),
        "a RST_STREAM of 3 bytes": begun + frame(http2.RST_STREAM, 0, 1, bytes(3)),
        "a RST_STREAM of an idle stream": http2.reset(99, 0),
        "CONTINUATION of nothing": frame(http2.CONTINUATION, http2.END_HEADERS, 1, begun[9:]),
        "a GOAWAY of 3 bytes": frame(http2.GOAWAY, 0, 0, bytes(3)),
    }

    async def too_large(peer: Peer) -> None:
        await peer.call(good())  # by then the server's settings have arrived
        await peer.send(frame(77, 0, 0, bytes(peer.max_frame + 1)))

    return {name: (sent(data), ENDED) for name, data in broken.items()} | {
        "a frame larger than allowed": (too_large, ENDED),
        "rubbish in frames": (sent(rubbish(500)), ENDED),
        "rubbish": (sent(noise.randbytes(100_000)), ENDED),
    }


def _prefaces() -> dict[str, bytes]:
    return {
        "a preface of HTTP/1.1": b"POST / HTTP/1.1\r\nHost: x\r\n\r\n",
        "a preface of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        "a preface with one wrong byte": http2.PREFACE[:-1] + b"x" + http2.settings([]),
        "a preface of rubbish": seeded("preface").randbytes(4096),
        "a preface and no settings": http2.PREFACE + frame(http2.PING, 0, 0, bytes(8)),
    }


def _deaf() -> dict[str, Attack]:
    """Returns attacks of clients that give the server unlimited windows for answers and never read."""
    room = http2.window_update(0, 2**31 - 1 - http2.DEFAULT_WINDOW)

    async def answers(peer: Peer) -> None:
        await peer.send(http2.settings([(http2.INITIAL_WINDOW_SIZE, 2**31 - 1)]) + room)
        data = prefixed(infer_message(values=[1.0] * 3000))
        for _ in range(512 * MIB // len(data)):
            id = peer.fresh()
            await peer.send(peer.headers(id) + frame(http2.DATA, http2.END_STREAM, id, data))

    async def pings(peer: Peer) -> None:
        for _ in range(1000):
            await peer.send(frame(http2.PING, 0, 0, bytes(8)) * 1000)

    def for_a_while(attack: Attack) -> Attack:
        async def bounded(peer: Peer) -> None:
            with contextlib.suppress(TimeoutError):  # the server has closed the connection, which is right
                async with asyncio.timeout(5):
                    await attack(peer)

        return bounded

    return {
        "answers that nobody reads": for_a_while(answers),
        "answers to PING that nobody reads": for_a_while(pings),
    }
