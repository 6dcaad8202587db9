"""Writes answers as bytes: a JSON head, then the binary outputs, and the HTTP headers with the length of the head.

For given requested outputs the head depends only on their shapes, so it is built once per shape and cached.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import orjson

from serving.protocol.errors import BadOutput
from serving.protocol.joining import AT_ONCE_ELEMENTS, append, joined
from serving.protocol.json_codec import written_values
from serving.protocol.messages import Tensor
from serving.protocol.spans import Span
from serving.protocol.tensors import numpy_dtype, write_tensor

Header = tuple[bytes, bytes]
HEADER_LENGTH = b"inference-header-content-length"
_JSON = (b"content-type", b"application/json")
_BINARY = (b"content-type", b"application/octet-stream")
_MAX_HEADS = 256


class HeaderBlock(NamedTuple):
    """HTTP headers in two forms: as pairs, and as the bytes on the wire."""

    pairs: list[Header]
    block: bytes


class PlainHead(NamedTuple):
    """The cached head of an answer whose outputs are all binary numbers. `join`: concatenates head and outputs."""

    headers: HeaderBlock
    head: bytes
    join: Callable[[Iterable[Any]], bytes]


def encoded(headers: Iterable[Header]) -> bytes:
    """Encodes headers for HTTP/1.1, one per line."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """The format of one output. `classes` > 0: the caller has already turned it into BYTES labels. `span`: the caller
    has already written it to shared memory, so the answer holds only its shape."""

    name: str
    datatype: str
    binary: bool
    classes: int = 0
    span: Span | None = None


class ReplyFormat:
    """The outputs that a client asks for, with their formats; shared by all requests that ask for the same."""

    __slots__ = ("dtypes", "has_classes", "heads", "is_plain", "names", "outputs", "shared", "typed")

    def __init__(self, outputs: Sequence[OutputFormat]) -> None:
        self.outputs = tuple(outputs)
        self.names = tuple(output.name for output in self.outputs)
        self.has_classes = any(output.classes for output in self.outputs)
        self.shared = tuple(output for output in self.outputs if output.span)
        self.is_plain = (
            bool(outputs)
            and not self.shared
            and all(output.binary and output.datatype != "BYTES" for output in self.outputs)
        )
        self.dtypes = tuple(numpy_dtype(output.datatype) for output in self.outputs)
        self.typed = tuple(zip(self.outputs, self.dtypes, strict=True))
        self.heads: dict[tuple[tuple[int, ...], ...], PlainHead] = {}


class ReplyWriter:
    """Writes the answers of one model."""

    def __init__(self, model_name: str, model_version: str) -> None:
        self._opening = b'{"model_name":%b,"model_version":%b,"outputs":[' % (
            orjson.dumps(model_name),
            orjson.dumps(model_version),
        )

    def write(self, form: ReplyFormat, values: Mapping[str, Tensor], id: str = "") -> tuple[HeaderBlock, bytes]:
        """Returns headers (content type, head length, content length) and body. Raises BadOutput if the values do not
        match the declared outputs, BadTensor if they cannot be written as the JSON that the client asked for."""
        if not form.is_plain:
            return self._write_mixed(form, values, id)
        shapes: list[tuple[int, ...]] = []
        parts: list[Any] = [b""]  # the head, and arrays or bytes: objects with the buffer protocol
        for output, dtype in form.typed:
            try:
                array = values[output.name]
            except KeyError:
                raise BadOutput(f"the model returned no output {output.name!r}") from None
            shapes.append(array.shape)
            if array.dtype is dtype and array.flags.c_contiguous:
                parts.append(array)
            else:
                parts.append(write_tensor(fitting(array, output)))
        key = tuple(shapes)
        found = form.heads.get(key)
        if found is None:
            found = self._plain_head(form, key)
        headers, head, join = found
        parts[0] = head
        if id:
            # The cached head begins with a brace; the id follows it.
            parts[0] = head = b'{"id":%b,%b' % (orjson.dumps(id), head[1:])
            body = join(parts)
            return _headers(len(head) if len(body) > len(head) else None, len(body)), body
        return headers, join(parts)

    def _plain_head(self, form: ReplyFormat, shapes: tuple[tuple[int, ...], ...]) -> PlainHead:
        descriptions: list[bytes] = []
        body_bytes = 0
        for (output, dtype), shape in zip(form.typed, shapes, strict=True):
            size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            body_bytes += size
            descriptions.append(_description(output, shape) + b',"parameters":{"binary_data_size":%d}}' % size)
        head = self._opening + b",".join(descriptions) + b"]}"
        # With nothing binary behind it the head is an ordinary JSON answer.
        headers = _headers(len(head) if body_bytes else None, len(head) + body_bytes)
        found = PlainHead(headers, head, b"".join if body_bytes <= 8 * AT_ONCE_ELEMENTS else joined)
        if len(form.heads) >= _MAX_HEADS:
            form.heads.clear()
        form.heads[shapes] = found
        return found

    def _write_mixed(self, form: ReplyFormat, values: Mapping[str, Tensor], id: str) -> tuple[HeaderBlock, bytes]:
        body = BytesIO()
        body.write(b'{"id":%b,%b' % (orjson.dumps(id), self._opening[1:]) if id else self._opening)
        tail: list[Any] = []
        for index, output in enumerate(form.outputs):
            if output.name not in values:
                raise BadOutput(f"the model returned no output {output.name!r}")
            array = fitting(values[output.name], output)
            if index:
                body.write(b",")
            body.write(_description(output, array.shape))
            # An output in shared memory has no parameters: the C++ client reads any parameter as the announcement of
            # binary data.
            if not output.span and output.binary:
                raw = write_tensor(array)
                size = len(raw) if isinstance(raw, bytes) else raw.nbytes
                tail.append(raw)
                body.write(b',"parameters":{"binary_data_size":%d}' % size)
            elif not output.span:
                body.write(b',"data":')
                for part in written_values(array, output.datatype, f"output {output.name!r}"):
                    append(body, part)
            body.write(b"}")
        body.write(b"]}")
        head_bytes = body.tell()
        for raw in tail:
            append(body, raw)
        body_bytes = body.tell()
        return _headers(head_bytes if body_bytes > head_bytes else None, body_bytes), body.getvalue()


def fitting(array: Tensor, output: OutputFormat) -> Tensor:
    """Returns the array if it has the declared datatype. Raises BadOutput otherwise, since the client would misread
    its bytes."""
    expected = numpy_dtype(output.datatype)
    if output.datatype == "BYTES":
        fits = array.dtype.kind in "OSU"
    else:
        fits = array.dtype == expected or (output.datatype == "BF16" and array.dtype == np.uint16)
        fits = fits or array.dtype.newbyteorder("<") == expected
    if not fits:
        raise BadOutput(f"the model returned {array.dtype} for output {output.name!r}, declared as {output.datatype}")
    return array


def _description(output: OutputFormat, shape: tuple[int, ...]) -> bytes:
    """Writes name, datatype and shape of an output, without the closing brace: its parameters or data follow."""
    return b'{"name":%b,"datatype":"%b","shape":%b' % (
        orjson.dumps(output.name),
        output.datatype.encode(),
        orjson.dumps(shape),
    )


def _headers(head_bytes: int | None, body_bytes: int) -> HeaderBlock:
    length = (b"content-length", b"%d" % body_bytes)
    pairs = [_JSON, length] if head_bytes is None else [_BINARY, (HEADER_LENGTH, b"%d" % head_bytes), length]
    return HeaderBlock(pairs, encoded(pairs))
