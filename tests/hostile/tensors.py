"""Hostile tensors: odd, negative or overflowing shapes, wrong types and sizes, shared memory that differs from its
registration."""

import itertools
import json
import os
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from serving.protocol.pb import message
from tests.hostile.http import exchange, head
from tests.hostile.http2 import Peer, prefixed
from tests.hostile.inputs import Answer, Doors, Hostile, Send, words

KIND = "tensors"
READ, WRONG = words("200"), words("400")
WRONG_CALL = words("INVALID_ARGUMENT")
SHARED = Path("/dev/shm")


def corpus(size: int) -> list[Hostile]:
    return [*_as_json(), *_as_bytes(), *_over_grpc(), *_shared()]


def asked(tensor: dict[str, Any] | str, raw: bytes = b"", **more: Any) -> Send:
    """Returns a function that sends a request with the input of `numbers`, whose fields `tensor` replaces, or with this
    JSON. raw: bytes after the JSON."""
    usual = {"name": "x", "datatype": "FP32", "shape": [1, 2]}
    text = tensor if isinstance(tensor, str) else json.dumps(usual | tensor)
    content = f'{{"inputs":[{text}]{"".join(f",{json.dumps(key)}:{json.dumps(more[key])}" for key in more)}}}'.encode()

    async def send(doors: Doors) -> Answer:
        lengths = {"Inference-Header-Content-Length": str(len(content))} if raw else {}
        return await exchange(doors.http, [head("numbers", len(content) + len(raw), lengths), content, raw])

    return send


# Shapes, and the number of elements that they seem to have if the product overflows.
SHAPES: dict[str, tuple[Any, frozenset[str]]] = {
    "negative": ([1, -2], WRONG),
    "of -1": ([-1, -1], WRONG),
    "twice negative": ([-1, -2], WRONG),
    "that overflows 64 bits to 0": ([2**32, 2**32], WRONG),
    "that overflows 64 bits to 2": ([2**62 + 1, 2, 1], WRONG),
    "that overflows in bytes": ([2**62, 1], WRONG),
    "beyond 64 bits": ([2**64 + 1, 2], WRONG),
    "of 200 digits": ([10**200, 2], WRONG),
    "of an enormous number of rows": ([2**40, 0], WRONG),
    "of nothing": ([], WRONG),
    "of one dimension": ([2], WRONG),
    "of 1,000 dimensions": ([1] * 998 + [1, 2], WRONG),
    "of fractions": ([1, 2.5], WRONG),
    "of whole fractions": ([1.0, 2.0], WRONG),
    "of strings": (["1", "2"], WRONG),
    "of truths": ([True, 2], WRONG),
    "of null": (None, WRONG),
    "that is nested": ([[1, 2]], WRONG),
}


def _as_json() -> list[Hostile]:
    def classified(classes: int) -> Send:
        return asked({"data": [1, 2]}, outputs=[{"name": "y", "parameters": {"classification": classes}}])

    def with_parameter(name: str, value: object) -> Send:
        return asked({"data": [1, 2]}, parameters={name: value})

    cases: dict[str, tuple[Send, frozenset[str]]] = {
        f"a shape {name}": (asked({"shape": shape, "data": [1, 2]}), right) for name, (shape, right) in SHAPES.items()
    } | {
        "no columns": (asked({"shape": [1, 0], "data": []}), READ),
        "no columns, and data": (asked({"shape": [1, 0], "data": [1]}), WRONG),
        "no rows": (asked({"shape": [0, 2], "data": []}), WRONG),
        "another type": (asked({"datatype": "INT64", "data": [1, 2]}), WRONG),
        "a type that is none": (asked({"datatype": "FP31", "data": [1, 2]}), WRONG),
        "a type in small letters": (asked({"datatype": "fp32", "data": [1, 2]}), WRONG),
        "BYTES for numbers": (asked({"datatype": "BYTES", "data": ["a", "b"]}), WRONG),
        "too little data": (asked({"data": [1]}), WRONG),
        "too much data": (asked({"data": [1, 2, 3]}), WRONG),
        "objects for data": (asked({"data": [{}, {}]}), WRONG),
        "data that overflows": (asked({"data": [1e300, -1e300]}), READ),
        "no data": (asked({}), WRONG),
        "the same input twice": (asked('{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]},' * 2 + "{}"), WRONG),
        "an output that is none": (asked({"data": [1, 2]}, outputs=[{"name": "z"}]), WRONG),
        "the same output twice": (asked({"data": [1, 2]}, outputs=[{"name": "y"}] * 2), WRONG),
        "classes without number": (classified(-1), WRONG),
        "a great many classes": (classified(2**62), READ),
        "a timeout of 2^80": (with_parameter("timeout", 2**80), WRONG),
        "a negative timeout": (with_parameter("timeout", -1), WRONG),
        "a priority of text": (with_parameter("priority", "high"), WRONG),
        "a sequence for a model without state": (with_parameter("sequence_id", 2**64), READ),
    }  # fmt: skip
    return [Hostile(f"{name}, as JSON", KIND, send, right) for name, (send, right) in cases.items()]


def _as_bytes() -> list[Hostile]:
    two = struct.pack("<2f", 1, 2)

    def sized(size: Any, raw: bytes = two, **tensor: Any) -> Send:
        return asked(tensor | {"parameters": {"binary_data_size": size}}, raw)

    cases: dict[str, tuple[Send, frozenset[str]]] = {
        f"a shape {name}": (sized(8, shape=shape), right) for name, (shape, right) in SHAPES.items()
    } | {
        "fewer bytes than the shape": (sized(4, two[:4]), WRONG),
        "more bytes than the shape": (sized(12, two + two[:4]), WRONG),
        "more bytes announced than sent": (sized(800), WRONG),
        "bytes that nobody announced": (sized(8, two + b"more"), WRONG),
        "a negative number of bytes": (sized(-8), WRONG),
        "2^63 bytes": (sized(2**63), WRONG),
        "10^30 bytes": (sized(10**30), WRONG),
        "bytes by a fraction": (sized(8.5), WRONG),
        "bytes by a string": (sized("8"), WRONG),
        "bytes and data": (asked({"data": [1, 2], "parameters": {"binary_data_size": 8}}, two), WRONG),
        "NaN and infinities": (sized(8, struct.pack("<2f", float("nan"), float("-inf"))), READ),
        "another type of the same size": (sized(8, datatype="INT32"), WRONG),
        "no columns": (sized(0, b"", shape=[1, 0]), READ),
        "a great many rows of nothing": (sized(0, b"", shape=[2**40, 0]), WRONG),
    }
    return [Hostile(f"{name}, as bytes", KIND, send, right) for name, (send, right) in cases.items()]


def _over_grpc() -> list[Hostile]:
    def called(shape: list[int], raw: bytes = struct.pack("<2f", 1, 2), datatype: str = "FP32") -> Send:
        request = message("ModelInferRequest")(model_name="numbers")
        request.inputs.add(name="x", datatype=datatype, shape=shape)
        request.raw_input_contents.append(raw)
        data = prefixed(request.SerializeToString())

        async def send(doors: Doors) -> Answer:
            async with Peer(doors.grpc) as peer:
                return await peer.call(data)

        return send

    cases: dict[str, tuple[Send, frozenset[str]]] = {
        "a negative shape": (called([1, -2]), WRONG_CALL),
        "a shape of -1": (called([-1, -1]), WRONG_CALL),
        "a shape that overflows to 0": (called([2**32, 2**32], b""), WRONG_CALL),
        "a shape that overflows to 2": (called([2**62 + 1, 2, 1]), WRONG_CALL),
        "the largest shape": (called([2**63 - 1, 2**63 - 1]), WRONG_CALL),
        "no shape": (called([]), WRONG_CALL),
        "no columns": (called([1, 0], b""), words("OK")),
        "no rows": (called([0, 2], b""), WRONG_CALL),
        "a great many rows of nothing": (called([2**40, 0], b""), WRONG_CALL),
        "another type": (called([1, 2], datatype="INT32"), WRONG_CALL),
        "a type that is none": (called([1, 2], datatype="\x00"), WRONG_CALL),
        "a type of 10 KB": (called([1, 2], datatype="F" * 10_000), WRONG_CALL),
        "a byte too few": (called([1, 2], bytes(7)), WRONG_CALL),
        "a byte too much": (called([1, 2], bytes(9)), WRONG_CALL),
        "NaN": (called([1, 2], struct.pack("<2f", float("nan"), float("inf"))), words("OK")),
    }
    return [Hostile(f"{name}, over gRPC", KIND, send, right) for name, (send, right) in cases.items()]


# -- shared memory ----------------------------------------------------------------------------------------------------

_numbers = itertools.count()
Story = Callable[["Region"], Awaitable[Answer]]


class Region:
    """4096 bytes of shared memory of the machine, registered with the server under a unique name."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self.name = f"hostile-{os.getpid()}-{next(_numbers)}"
        self.path = SHARED / self.name

    async def register(self, **changes: Any) -> Answer:
        facts = {"key": f"/{self.name}", "offset": 0, "byte_size": 4096} | changes
        return await self._post(f"/v2/systemsharedmemory/region/{self.name}/register", json.dumps(facts).encode())

    async def unregister(self) -> Answer:
        return await self._post(f"/v2/systemsharedmemory/region/{self.name}/unregister", b"")

    async def ask(self, *, output: bool = False, **span: Any) -> Answer:
        """Sends a request with the input, or the output, in this span of the region."""
        there = {"shared_memory_region": self.name, "shared_memory_byte_size": 8} | span
        if output:
            return await asked({"data": [1, 2]}, outputs=[{"name": "y", "parameters": there}])(self._doors)
        return await asked({"parameters": there})(self._doors)

    async def _post(self, path: str, body: bytes) -> Answer:
        return await exchange(self._doors.http, [head("", len(body), path=path), body])


def with_region(story: Story) -> Send:
    async def send(doors: Doors) -> Answer:
        region = Region(doors)
        region.path.write_bytes(bytes(4096))
        try:
            return await story(region)
        finally:
            await region.unregister()
            region.path.unlink(missing_ok=True)

    return send


def _shared() -> list[Hostile]:
    def spanned(**span: Any) -> Story:
        async def story(region: Region) -> Answer:
            registered = await region.register()
            return registered if registered.what != "200" else await region.ask(**span)

        return story

    def registered(**changes: Any) -> Story:
        async def story(region: Region) -> Answer:
            return await region.register(**changes)

        return story

    def changed(change: Callable[[Region], object], *, used: bool, output: bool = False) -> Story:
        """Changes the memory after it was registered. used: and after a request has opened it."""

        async def story(region: Region) -> Answer:
            await region.register()
            if used:
                await region.ask(output=output)
            change(region)
            return await region.ask(output=output)

        return story

    def shrunk(region: Region) -> None:
        os.truncate(region.path, 0)

    def gone(region: Region) -> None:
        region.path.unlink()

    async def unknown(region: Region) -> Answer:
        return await region.ask()

    size, offset = "shared_memory_byte_size", "shared_memory_offset"
    spans: dict[str, dict[str, Any]] = {
        "beyond the end": {offset: 4096},
        "across the end": {offset: 4092},
        "with a negative offset": {offset: -8},
        "with an offset of 2^63": {offset: 2**63},
        "with an offset of 2^64 less 8": {offset: 2**64 - 8},
        "with an offset of text": {offset: "0"},
        "with a negative size": {size: -8},
        "with a size of 2^64": {size: 2**64},
        "with a size that is not the shape's": {size: 12},
        "with a size of nothing": {size: 0},
    }
    regions: dict[str, dict[str, Any]] = {
        "a region larger than its memory": {"byte_size": 8192},
        "a region of negative size": {"byte_size": -1},
        "a region of 2^63 bytes": {"byte_size": 2**63},
        "a region with a negative offset": {"offset": -4096},
        "a region of memory that is not there": {"key": "/hostile-nowhere"},
        "a region of a file elsewhere": {"key": "/../../etc/passwd"},
        "a region of a file by its path": {"key": "/dev/shm/../../etc/passwd"},
        "a region with NUL in its key": {"key": "/a\0b"},
        "a region of /dev/zero": {"key": "/../zero"},
        "a region with a key of 10 KB": {"key": "/" + "k" * 10_000},
        "a region without a key": {"key": None},
    }
    return [
        *(Hostile(f"an input {name}", KIND, with_region(spanned(**span)), words("400"))
          for name, span in spans.items()),
        *(Hostile(f"an output {name}", KIND, with_region(spanned(output=True, **span)), words("400"))
          for name, span in spans.items() if "not the shape's" not in name),
        *(Hostile(name, KIND, with_region(registered(**changes)), WRONG) for name, changes in regions.items()),
        Hostile("a region that nobody registered", KIND, with_region(unknown), words("404")),
        *(
            Hostile(f"memory that {name} after it was {'used' if used else 'registered'}, for an {way}", KIND,
                    with_region(changed(change, used=used, output=way == "output")), right)
            for name, change, used, right in (
                ("shrank", shrunk, False, WRONG), ("shrank", shrunk, True, WRONG),
                ("was removed", gone, False, WRONG), ("was removed", gone, True, READ),  # a process keeps it open
            )
            for way in ("input", "output")
        ),
    ]  # fmt: skip
