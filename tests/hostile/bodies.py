"""Hostile bodies of HTTP requests: compressed, truncated, of wrong length, and JSON that is expensive to parse."""

import gzip
import zlib
from collections.abc import Callable
from functools import cache

from tests.hostile.http import exchange, head, post
from tests.hostile.inputs import MIB, REFUSED, Answer, Doors, Hostile, Send, seeded, words

KIND = "bodies"
EMPTY_MEMBER = gzip.compress(b"", mtime=0)
READ, WRONG = words("200"), words("400")


def tensor(data: str = "[1,2]", shape: str = "[1,2]", name: str = '"x"', more: str = "") -> str:
    return f'{{"name":{name},"datatype":"FP32","shape":{shape},"data":{data}{more}}}'


def infer(*tensors: str, more: str = "") -> bytes:
    return f'{{"inputs":[{",".join(tensors or (tensor(),))}]{more}}}'.encode("utf-8", "surrogatepass")


def array(item: str, count: int, *, first: str = "", last: str = "") -> str:
    """Returns a JSON array with `count` copies of this item."""
    return f"[{first or item}{f',{item}' * (count - 2)},{last or item}]"


def keys(count: int) -> str:
    return "".join(f',"k{number}":1' for number in range(count))


def text(key: str, value: str) -> str:
    return f',"{key}":"{value}"'


def posted(make: Callable[[], bytes], **headers: str) -> Send:
    """Returns a function that sends a body made at sending time, because all of them together would not fit into
    memory."""

    async def send(doors: Doors) -> Answer:
        return await post(doors.http, "numbers", make(), **headers)

    return send


def written(*parts: bytes, ends: bool = True, directly: bool = False) -> Send:
    """Returns a function that sends these bytes. directly: to the replica, because HAProxy would wait for a body that
    does not fit into its buffer."""

    async def send(doors: Doors) -> Answer:
        return await exchange(doors.direct_http["numbers"] if directly else doors.http, parts, ends=ends)

    return send


def corpus(size: int) -> list[Hostile]:
    """Returns the inputs. size: of large bodies, in bytes; below the server's limit."""
    return [*_compressed(size), *_json(size), *_lengths()]


@cache
def _bomb(coding: int, size: int) -> bytes:
    compressor = zlib.compressobj(6, zlib.DEFLATED, coding)
    zeros = bytes(MIB)
    return b"".join([compressor.compress(zeros) for _ in range(size // MIB)]) + compressor.flush()


def _compressed(size: int) -> list[Hostile]:
    most = 256 * MIB
    good = gzip.compress(infer(), mtime=0)
    one_bad_bit = bytearray(good)
    one_bad_bit[-8] ^= 1
    cases: dict[str, tuple[Callable[[], bytes], str, frozenset[str]]] = {
        "gzip bomb of 256 MiB": (lambda: _bomb(31, most), "gzip", words("413")),
        "deflate bomb of 256 MiB": (lambda: _bomb(15, most), "deflate", words("413")),
        "gzip of just what is allowed": (lambda: _bomb(31, size), "gzip", WRONG),
        "many empty gzip members": (lambda: EMPTY_MEMBER * (size // 4 // 20), "gzip", WRONG),
        "empty gzip members before a body": (lambda: EMPTY_MEMBER * 10_000 + good, "gzip", WRONG),
        "many gzip members of a byte": (lambda: gzip.compress(b" ", mtime=0) * 100_000, "gzip", WRONG),
        "many empty deflate blocks": (lambda: good[:10] + b"\0\0\0\xff\xff" * (MIB // 5), "gzip", WRONG),
        "a gzip header of a MiB": (lambda: good[:3] + b"\x08" + good[4:10] + b"n" * MIB + b"\0", "gzip", WRONG),
        "gzip cut off": (lambda: good[:-9], "gzip", words("400")),
        "gzip with a wrong checksum": (lambda: bytes(one_bad_bit), "gzip", words("400")),
        "gzip and rubbish": (lambda: good + b"rubbish", "gzip", words("400")),
        "gzip that is none": (infer, "gzip", words("400")),
        "gzip of nothing": (lambda: b"", "gzip", words("400")),
        "raw deflate": (lambda: zlib.compress(infer(), wbits=-15), "deflate", READ),
        "gzip of gzip": (lambda: gzip.compress(good, mtime=0), "gzip, gzip", words("415")),
        "coding br": (infer, "br", words("415")),
        "a coding of 8 KiB": (infer, "x" * 8000, words("415")),
    }
    return [
        Hostile(name, KIND, posted(make, Content_Encoding=coding), right)
        for name, (make, coding, right) in cases.items()
    ]


def _json(size: int) -> list[Hostile]:
    count = size // 4
    wide = f"[1,{count}]"
    noise = seeded("invalid UTF-8").randbytes(1000)
    cases: dict[str, tuple[Callable[[], bytes], frozenset[str]]] = {
        "plain numbers": (lambda: infer(tensor(array("0.5", count), wide)), READ),
        "numbers and one NaN": (lambda: infer(tensor(array("0.5", count, last="NaN"), wide)), READ),
        "numbers and one NaN in front": (lambda: infer(tensor(array("0.5", count, first="NaN"), wide)), READ),
        "NaN again and again": (lambda: infer(tensor(array("NaN", count), wide)), READ),
        "a NaN within a long string": (lambda: infer(tensor("[NaN,2]"), more=text("id", "NaN," * count)), WRONG),
        "brackets, never closed": (lambda: b'{"inputs":' + b"[" * size, words("400")),
        "brackets, closed": (lambda: b'{"inputs":' + b"[" * (size // 2) + b"]" * (size // 2) + b"}", words("400")),
        "braces": (lambda: b'{"a":' * (size // 5), words("400")),
        "data nested a row each": (lambda: infer(tensor(array("[1]", count), wide)), READ),
        "data nested deeply": (lambda: infer(tensor("[" * 10_000 + "1,2" + "]" * 10_000)), WRONG),
        "many inputs": (lambda: infer(*["{}"] * (size // 3)), words("400")),
        "many inputs with names": (lambda: infer(*[tensor()] * (size // 70)), words("400")),
        "many outputs": (lambda: infer(more=',"outputs":' + array("{}", size // 3)), words("400")),
        "many outputs with names": (
            lambda: infer(more=',"outputs":' + array('{"name":"y"}', size // 13)),
            words("400"),
        ),
        "many parameters": (lambda: infer(more=f',"parameters":{{"a":1{keys(size // 12)}}}'), WRONG),
        "many unknown keys": (lambda: infer(more=keys(size // 12)), WRONG),
        "the same key again and again": (lambda: infer(more=text("id", "a") * (size // 9)), WRONG),
        "a long name": (lambda: infer(tensor(name=f'"{size * "n"}"')), words("400")),
        "a long id": (lambda: infer(more=text("id", "i" * size)), WRONG),
        "a long string of escapes": (lambda: infer(more=text("id", r"\u0041" * (size // 6))), WRONG),
        "white space": (lambda: b" " * size + infer(), WRONG),
        "strings for numbers": (lambda: infer(tensor(array('"1"', count), wide)), words("400")),
        "a number of many digits": (lambda: infer(tensor(f"[{count * '9'},2]")), WRONG),
        "an exponent out of bounds": (lambda: infer(tensor("[1e999999999,-1e999999999]")), WRONG),
        "a lone surrogate": (lambda: infer(more=text("id", r"\ud800")), WRONG),
        "a lone surrogate and a NaN": (lambda: infer(tensor("[NaN,2]"), more=text("id", r"\ud800")), WRONG),
        "a lone surrogate, raw": (lambda: infer(more=text("id", "\ud800")), words("400")),
        "a lone surrogate for a name": (lambda: infer(tensor(name=r'"\udfff"')), words("400")),
        "invalid UTF-8": (lambda: b'{"id":"' + noise + b'",' + infer()[1:], words("400")),
        "a byte order mark": (lambda: b"\xef\xbb\xbf" + infer(), WRONG),
        "UTF-16": (lambda: infer().decode().encode("utf-16"), WRONG),
        "NUL after JSON": (lambda: infer() + b"\0", words("400")),
        "two documents": (lambda: infer() * 2, words("400")),
        "nothing": (lambda: b"", words("400")),
        "a number": (lambda: b"1", words("400")),
        "types everywhere wrong": (lambda: b'{"inputs":{"x":1},"outputs":7,"parameters":[],"id":{}}', words("400")),
    }
    return [Hostile(name, KIND, posted(make), right) for name, (make, right) in cases.items()]


def _lengths() -> list[Hostile]:
    body = infer()
    declared = {
        "beyond the body": str(len(body) + 1),
        "negative": "-1",
        "no number": "ten",
        "huge": "9" * 40,
        "with a sign": f"+{len(body)}",
        "of no JSON": "0",
        "in other digits": "٣",
    }
    cases = {
        f"a JSON length {what}": posted(lambda: body, Inference_Header_Content_Length=length.encode().decode("latin-1"))
        for what, length in declared.items()
    }
    cut = written(head("numbers", len(body) + 10), body)
    over = written(head("numbers", 10**15), body)
    chunked = head("numbers", None, {"Transfer-Encoding": "chunked"})
    whole = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    by_byte = b"".join(b"1\r\n%c\r\n" % byte for byte in b" " * 200_000 + body) + b"0\r\n\r\n"
    refused = words(REFUSED, "400 bare", "closed", "413 bare")
    framed = {
        "a body that ends early": (cut, words("400", "400 bare", "closed", "408 bare")),
        "a body declared as a petabyte": (over, words("413", "413 bare", "closed")),
        "chunks of a byte each": (written(chunked, by_byte, ends=False), words("200")),
        "a chunk with a wrong size": (written(chunked, b"zz\r\n" + body), words("400", "400 bare", "closed")),
        "a chunk with a huge size": (written(chunked, b"f" * 15 + b"\r\n" + body), refused),
        "a chunk with a size beyond 64 bits": (written(chunked, b"f" * 40 + b"\r\n" + body), refused),
        "chunks without an end": (written(chunked, whole[:-5]), words("400", "400 bare", "closed")),
        "a chunk's extension of a MiB": (
            written(chunked, whole.replace(b"\r\n", b";" + b"e" * MIB + b"\r\n", 1), ends=False, directly=True),
            words("431", "closed"),  # the end of the connection may overtake an answer to a client that still sends
        ),
        "many trailers": (
            written(chunked, whole[:-2] + b"".join(b"t%d: v\r\n" % n for n in range(20_000)) + b"\r\n", ends=False),
            words("400 bare", "431"),
        ),
    }  # fmt: skip
    return [
        *(Hostile(name, KIND, send, words("400")) for name, send in cases.items()),
        *(Hostile(name, KIND, send, right) for name, (send, right) in framed.items()),
    ]
