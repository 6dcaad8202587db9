"""The largest requests that are no attack, sent before hostile inputs. The memory that a server takes at their first
time (threads, their stacks, modules imported late) is then not attributed to an attack."""

import asyncio
import struct
import time
from collections.abc import Callable

from tests.hostile import bodies, pictures, texts
from tests.hostile.bystanders import Bystanders
from tests.hostile.http2 import Peer, infer_message, prefixed
from tests.hostile.inputs import Answer, Doors, Send
from tests.hostile.places import Memory, Place, memory_of
from tests.hostile.tensors import asked

TIMES = 2
SMALL_S = 3.0
STEADY_S = 8.0  # in which each process checks several times whether to trim its heap
ROOM_SHARE = 0.01


def largest(size: int) -> dict[str, Send]:
    """Returns the requests by name; each is answered with 200 or OK."""
    count = size // 4
    raw = bytes(size)
    numbers = bodies.posted(lambda: bodies.infer(bodies.tensor(bodies.array("0.5", count), f"[1,{count}]")))
    binary = asked({"shape": [1, count], "parameters": {"binary_data_size": size}}, raw)
    called = prefixed(infer_message(values=struct.unpack(f"<{count}f", raw)))

    async def over_grpc(doors: Doors) -> Answer:
        async with Peer(doors.grpc) as peer:
            return await peer.call(called)

    picture: Callable[[], bytes] = lambda: pictures.png(7000, 7000, colour=0, rows=7001 * 7000)  # noqa: E731
    return {
        "numbers as JSON": numbers,
        "numbers as bytes": binary,
        "numbers over gRPC": over_grpc,
        "a long text": texts.asked(lambda: [b"word " * (size // 5)]),
        "a large picture": pictures.asked(picture),
    }


async def _answered(send: Send, place: Place) -> Answer:
    return await send(place.doors)


def warmed(place: Place, bystanders: Bystanders, size: int, say: Callable[[str], None]) -> Memory:
    """Returns the memory of each process at rest, after such requests and small ones have been answered."""
    for name, send in list(largest(size).items()) * TIMES:
        answer = asyncio.run(_answered(send, place))
        assert answer.what in ("200", "OK"), f"{name}: {answer}"
    bystanders.begin()
    time.sleep(SMALL_S)
    bystanders.end()
    held = memory_of(place.look())
    until_s = time.monotonic() + STEADY_S
    while time.monotonic() < until_s:
        time.sleep(1)
        now = memory_of(place.look())
        if any(now[name] < held[name] * (1 - ROOM_SHARE) for name in held):
            held, until_s = now, time.monotonic() + STEADY_S
    held = memory_of(place.look())
    say("at rest: " + ", ".join(f"{name} {mib >> 20} MiB" for name, mib in held.items()))
    return held
