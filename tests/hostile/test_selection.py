"""Sends a small part of the corpus to servers in one process. `make hostile` sends all of it to a real server."""

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest

from serving.config import load_settings
from tests.hostile import artefacts, bodies, frames, heads, messages, pictures, settings, tensors, texts
from tests.hostile.alone import address, balance
from tests.hostile.files import HostileFile
from tests.hostile.http import post
from tests.hostile.http2 import Peer, good
from tests.hostile.inputs import Doors, Hostile
from tests.hostile.places import SETTINGS
from tests.house import House, house

SIZE = 64 * 1024
SENT = [
    hostile for kind in (heads, frames, tensors, messages, pictures, texts, bodies) for hostile in kind.corpus(SIZE)
]
LOADED = [hostile for kind in (settings, artefacts) for hostile in kind.corpus(SIZE)]
CHOSEN = {
    "bodies": (
        "gzip cut off", "gzip and rubbish", "gzip of gzip", "plain numbers", "numbers and one NaN", "many outputs",
        "brackets, never closed", "a lone surrogate for a name", "invalid UTF-8", "a JSON length negative",
        "a chunk with a wrong size", "a body declared as a petabyte",
    ),
    "heads": (
        "NUL in a header", "two lengths that differ", "a length and chunks", "chunked, but identity", "a TLS greeting",
        "a negative length", "bytes beyond ASCII",
    ),
    "frames": (
        "DATA on no stream", "HEADERS of an even stream", "CONTINUATION of nothing", "a frame of 16 MB",
        "credit of nothing", "a number without end", "an entry that is not in the table", "a preface of HTTP/1.1",
        "rubbish", "a flood of PING", "a header block that never ends, full",
    ),
    "messages": (
        "a second message", "a byte after the message", "compressed without a coding", "half a message", "rubbish",
        "a message of 4 GiB, announced", "a model's name that is no UTF-8", "many empty inputs", "GET",
        "a timeout of 30 digits", "headers over 64 KiB",
    ),
    "tensors": (
        "a shape that overflows 64 bits to 0, as JSON", "a shape negative, as bytes", "10^30 bytes, as bytes",
        "a shape that overflows to 2, over gRPC", "NaN and infinities, as bytes", "the same input twice, as JSON",
    ),
}  # fmt: skip
FILES = {
    "settings": ("a tag that runs code", "a port of 400 digits", "NUL", "a byte order mark", "a shape of text"),
    "artefacts": ("a file that is not there", "another ending"),
}


def chosen() -> Iterator[Hostile]:
    by_name = {(hostile.kind, hostile.name): hostile for hostile in SENT}
    for kind, names in CHOSEN.items():
        yield from (by_name[kind, name] for name in names)


@pytest.fixture(scope="module")
def served() -> Iterator[House]:
    numbers = next(spec for spec in load_settings(SETTINGS).model_specs() if spec.name == "numbers")
    with house(numbers) as running:
        yield running


@pytest.mark.parametrize("hostile", list(chosen()), ids=lambda hostile: f"{hostile.kind}: {hostile.name}")
def test_a_hostile_input_is_answered_as_it_should_be_and_others_are_answered_after_it(served, hostile) -> None:
    http, grpc = address(served.http), address(served.grpc)
    doors = Doors(http, grpc, {"numbers": http}, {"numbers": grpc})

    async def story() -> None:
        answer = await hostile.send(doors)
        assert answer.what in hostile.right, answer
        assert (await post(http, "numbers", bodies.infer())).what == "200"
        async with Peer(grpc) as peer:
            assert (await peer.call(good())).what == "OK"

    asyncio.run(story())
    assert balance(served) == "good"


@pytest.mark.parametrize(
    "hostile",
    [hostile for hostile in LOADED if hostile.name in FILES[hostile.kind]],
    ids=lambda hostile: f"{hostile.kind}: {hostile.name}",
)
def test_a_hostile_file_is_loaded_or_refused_by_its_name(hostile: HostileFile) -> None:
    answer = hostile.answer()
    assert answer.what in hostile.right, answer


def test_every_input_has_a_name_of_its_own_within_its_kind() -> None:
    counted = Counter((hostile.kind, hostile.name) for hostile in (*SENT, *LOADED))
    assert [name for name, count in counted.items() if count > 1] == []
