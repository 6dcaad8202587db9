"""Hostile texts for a model with a tokenizer: of many megabytes, of control characters, and of unusual characters."""

import json
import struct
from collections.abc import Callable

from tests.hostile.http import exchange, head
from tests.hostile.inputs import Answer, Doors, Hostile, Send, always, seeded, words

KIND = "texts"
READ, WRONG = words("200"), words("400")


def asked(make: Callable[[], list[bytes]], *, rows: int | None = None, raw: Callable[[], bytes] | None = None) -> Send:
    """Returns a function that sends the texts as binary data. rows: the number of rows in the shape. raw: sent instead
    of well-formed elements."""

    async def send(doors: Doors) -> Answer:
        elements = make()
        data = raw() if raw else b"".join(struct.pack("<I", len(one)) + one for one in elements)
        size = {"binary_data_size": len(data)}
        shape = [len(elements) if rows is None else rows, 1]
        tensor = {"name": "text", "datatype": "BYTES", "shape": shape, "parameters": size}
        content = json.dumps({"inputs": [tensor]}).encode()
        lengths = {"Inference-Header-Content-Length": str(len(content))}
        return await exchange(doors.http, [head("texts", len(content) + len(data), lengths), content, data])

    return send


def encoded(make: Callable[[], str]) -> Callable[[], list[bytes]]:
    """Returns a function that makes the text at sending time, because some have many megabytes."""
    return lambda: [make().encode()]


def as_json(make: Callable[[], str]) -> Send:
    async def send(doors: Doors) -> Answer:
        tensor = {"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": [make()]}
        content = json.dumps({"inputs": [tensor]}).encode()
        return await exchange(doors.http, [head("texts", len(content)), content])

    return send


def corpus(size: int) -> list[Hostile]:
    large: dict[str, Callable[[], str]] = {
        "many words": lambda: "word " * (size // 5),
        "one word": lambda: "w" * size,
        "white space": lambda: " " * size,
        "line feeds": lambda: "\n" * size,
        "punctuation": lambda: "!" * size,
        "Chinese": lambda: "\u4e2d" * (size // 3),
        "accents on one letter": lambda: "a" + "\u0301" * (size // 2),
        "emoji joined to one": lambda: "\U0001f469\u200d" * (size // 7),
        "letters that grow when composed": lambda: "\ufdfa" * (size // 3),
    }
    small = {
        "nothing": "",
        "NUL": "\0",
        "control characters": "".join(map(chr, range(32))) + "\x7f\x80\x9f",
        "a byte order mark": "\ufeffThe train leaves at noon.",
        "right to left": "\u202eThe train\u202c",
        "noncharacters": "\ufffe\uffff\U0010ffff",
        "special tokens": "[CLS] [SEP] [MASK] [PAD] [UNK]",
        "escapes for a terminal": "\x1b[2J\x1b]0;title\x07",
        "letters from everywhere": "".join(map(chr, range(0xA0, 0x3000, 7))),
    }
    wrong = {
        "invalid UTF-8": b"\xff\xfe\xfd",
        "UTF-8 cut off": "\u4e2d".encode()[:2],
        "overlong UTF-8": b"\xc0\xaf",
        "surrogates in UTF-8": b"\xed\xa0\x80",
        "UTF-16": "The train".encode("utf-16"),
        "random bytes": seeded("text").randbytes(1000),
    }
    framed: dict[str, tuple[int, Callable[[], bytes]]] = {
        "an element longer than the data": (1, lambda: struct.pack("<I", 100) + b"short"),
        "an element of 4 GiB": (1, lambda: struct.pack("<I", 2**32 - 1) + b"short"),
        "a length cut off": (1, lambda: b"\1\0"),
        "fewer elements than rows": (3, lambda: struct.pack("<I", 1) + b"a"),
        "more elements than rows": (1, lambda: (struct.pack("<I", 1) + b"a") * 2),
        "no data for a row": (1, lambda: b""),
        "2^40 rows": (2**40, lambda: struct.pack("<I", 1) + b"a"),
    }
    return [
        *(
            Hostile(f"{name}, {size >> 20} MiB", KIND, asked(encoded(make)), READ)
            for name, make in large.items()
        ),
        *(Hostile(name, KIND, asked(always([text.encode()])), READ) for name, text in small.items()),
        *(
            Hostile(f"{name}, as JSON", KIND, as_json(always(text)), words("200"))
            for name, text in small.items()
        ),
        *(Hostile(name, KIND, asked(always([text])), words("400")) for name, text in wrong.items()),
        *(
            Hostile(name, KIND, asked(list, rows=rows, raw=raw), words("400"))
            for name, (rows, raw) in framed.items()
        ),
        Hostile("rows of nothing", KIND, asked(lambda: [b""] * (size // 16)), WRONG),
        Hostile("rows of a letter", KIND, asked(lambda: [b"a"] * (size // 16)), WRONG),
        Hostile("one row of many MiB among short ones", KIND, asked(lambda: [b"a", b"b" * (size // 2)]), READ),
        Hostile("many words, as JSON", KIND, as_json(lambda: "word " * (size // 5)), READ),
    ]  # fmt: skip
