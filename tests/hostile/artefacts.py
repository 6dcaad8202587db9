"""Hostile weights: safetensors with false or truncated headers, and pickles that would run code."""

import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from models.weights import load_weights
from tests.hostile.files import HostileFile, written
from tests.hostile.inputs import MIB, seeded, words

KIND = "artefacts"
CLEAR = words("clear")


def corpus(size: int) -> list[HostileFile]:
    refused = {**_safetensors(), **_pickles()}
    return [
        *(
            HostileFile(f"{name} ({file})", KIND, written(file, make), load_weights, CLEAR)
            for name, (file, make) in refused.items()
        ),
        HostileFile("a file that is not there", KIND, lambda folder: folder / "none.safetensors", load_weights, CLEAR),
        HostileFile("a folder", KIND, _folder, load_weights, CLEAR),
        HostileFile("another ending", KIND, written("weights.exe", lambda: b"MZ"), load_weights, CLEAR),
        HostileFile(
            "names with slashes and NUL", KIND,
            written("names.safetensors", lambda: safetensors({"../\0/a": _entry()}, bytes(8))), load_weights,
            words(CLEAR, "loaded"),
        ),
        HostileFile(
            "no tensors", KIND, written("empty.safetensors", lambda: safetensors({}, b"")), load_weights,
            words(CLEAR, "loaded"),
        ),
    ]  # fmt: skip


def safetensors(header: Any, data: bytes, *, size: int | None = None) -> bytes:
    """Returns a safetensors file. size: the size of the header as stated in the file, if it is to be false."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def _entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


Files = dict[str, tuple[str, Callable[[], bytes]]]


def _safetensors() -> Files:
    data = bytes(8)
    good = safetensors({"a": _entry()}, data)
    cases: dict[str, Callable[[], bytes]] = {
        "nothing": lambda: b"",
        "half a length": lambda: good[:5],
        "only a length": lambda: good[:8],
        "header cut off": lambda: good[:20],
        "data cut off": lambda: good[:-1],
        "data and rubbish": lambda: good + b"rubbish",
        "header of 2^63 bytes": lambda: safetensors({"a": _entry()}, data, size=2**63),
        "header of 2^64 - 1 bytes": lambda: safetensors({"a": _entry()}, data, size=2**64 - 1),
        "header of 200 MB": lambda: safetensors(b'{"a":"' + b"x" * (200 * MIB) + b'"}', data),
        "header of 500,000 tensors": lambda: safetensors(
            b'{"a0":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
            + b"".join(b',"a%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % n for n in range(500_000))
            + b',"last":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}',
            b"",
        ),
        "header nested deeply": lambda: safetensors(b'{"a":' * 200_000, data),
        "header that is no JSON": lambda: safetensors(b"not JSON", data),
        "header that is a list": lambda: safetensors([1], data),
        "header of invalid UTF-8": lambda: safetensors(b'{"\xff":1}', data),
        "offsets beyond the end": lambda: safetensors({"a": _entry(offsets=(0, 800), shape=(200,))}, data),
        "offsets backwards": lambda: safetensors({"a": _entry(offsets=(8, 0))}, data),
        "negative offsets": lambda: safetensors({"a": _entry(offsets=(-8, 0))}, data),
        "offsets of 2^64": lambda: safetensors({"a": _entry(offsets=(2**64, 2**64 + 8))}, data),
        "offsets that overlap": lambda: safetensors({"a": _entry(), "b": _entry()}, data),
        "a shape that overflows": lambda: safetensors({"a": _entry(shape=(2**32, 2**32))}, data),
        "a shape that overflows to 2": lambda: safetensors({"a": _entry(shape=(2**63 + 1, 2))}, data),
        "a negative shape": lambda: safetensors({"a": _entry(shape=(-2,))}, data),
        "a type that is none": lambda: safetensors({"a": _entry(dtype="F31")}, data),
        "a pickle by another name": lambda: _runs_code(),
        "random bytes": lambda: seeded("safetensors").randbytes(10_000),
    }
    return {name: ("weights.safetensors", make) for name, make in cases.items()}


class _Runs:
    """Writes a file beside the settings when it is unpickled, which shows that code was run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (eval, ("__import__('pathlib').Path(__import__('os').environ['HEADWAY_CACHE'] + '/../run').touch()",))


def _runs_code() -> bytes:
    return pickle.dumps({"weight": _Runs()})


def _zipped(**members: bytes) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (members | {"archive__version": b"3"}).items():
            entry = zipfile.ZipInfo(name.replace("__", "/").replace("_", "."))  # always dated 1980
            archive.writestr(entry, content, compress_type=zipfile.ZIP_DEFLATED)
    return file.getvalue()


def _pickles() -> Files:
    named = {
        "a pickle that runs code": _runs_code,
        "a pickle of a string": lambda: pickle.dumps("weights"),
        "a pickle of numbers": lambda: pickle.dumps({"weight": 1}),
        "a pickle that doubles itself": lambda: b"\x80\x04]" + b"]\x94h\x00h\x00e" * 100 + b".",
        "a pickle cut off": lambda: _runs_code()[:-3],
        "nothing": lambda: b"",
        "random bytes": lambda: seeded("pickle").randbytes(10_000),
        "an archive with a pickle that runs code": lambda: _zipped(archive__data_pkl=_runs_code()),
        "an archive with a bomb": lambda: _zipped(archive__data_pkl=bytes(1024 * MIB)),
        "an archive of nothing": lambda: _zipped(),
    }  # fmt: skip
    return {
        f"{name}, as {file}": (file, make) for file in ("weights.pth", "weights.bin") for name, make in named.items()
    }


def _folder(folder: Path) -> Path:
    path = folder / "weights.safetensors"
    path.mkdir()
    return path
