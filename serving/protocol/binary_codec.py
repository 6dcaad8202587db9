"""Encodes and decodes whole messages as HTTP carries them: a JSON head, with or without binary tensors behind it.

Tools, tests and clients use these functions. The server itself caches layouts and reply heads between requests instead:
see `layout.py` and `reply.py`.
"""

from typing import Any

import orjson

from serving.protocol.errors import BadMessage, BadTensor
from serving.protocol.json_codec import decode_response_head, read_values, write_values
from serving.protocol.layout import binary_data_size, lay_out
from serving.protocol.messages import InferOutput, InferRequest, InferResponse, RequestedOutput
from serving.protocol.reply import HEADER_LENGTH, OutputFormat, ReplyFormat, ReplyWriter
from serving.protocol.tensors import check_datatype, check_size, element_count, read_tensor, write_tensor


def head_of(body: bytes, header_length: int | None) -> bytes:
    """Returns the JSON head of a body. `header_length` is the value of Inference-Header-Content-Length, None if it was
    not sent. Raises BadMessage if the body is shorter."""
    if header_length is None:
        return body
    if not 0 <= header_length <= len(body):
        raise BadMessage(f"Inference-Header-Content-Length is {header_length}, but the body has {len(body)} bytes")
    return body[:header_length]


def parse_header_length(value: bytes) -> int:
    """Returns the value of Inference-Header-Content-Length as a number. Raises BadMessage."""
    # int() would also take signs, spaces and underscores, and any number of digits.
    if not value.isdigit() or len(value) > 18:
        raise BadMessage("Inference-Header-Content-Length must be a number of bytes")
    return int(value)


def decode_request(body: bytes, header_length: int | None = None) -> InferRequest:
    """Decodes a request. Raises BadMessage, and no other exception, for bytes that are no request."""
    head = head_of(body, header_length)
    return lay_out(head).message(body, len(head))


def encode_request(request: InferRequest) -> tuple[bytes, int | None]:
    """Returns the body and its header length, which is None if everything is JSON."""
    tail: list[Any] = []  # bytes and arrays: objects with the buffer protocol
    inputs: list[dict[str, object]] = []
    for tensor in request.inputs:
        entry: dict[str, object] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if tensor.binary:
            raw = write_tensor(tensor.data)
            tail.append(raw)
            entry["parameters"] = {"binary_data_size": len(raw) if isinstance(raw, bytes) else raw.nbytes}
        else:
            entry["data"] = orjson.Fragment(write_values(tensor.data, tensor.datatype, f"input {tensor.name!r}"))
        inputs.append(entry)
    # The id comes first, as in tritonclient: the server can then find the rest of the head in its cache.
    message: dict[str, object] = {"id": request.id} if request.id else {}
    message["inputs"] = inputs
    if request.parameters:
        message["parameters"] = dict(request.parameters)
    if request.outputs:
        message["outputs"] = [_requested(output) for output in request.outputs]
    head = orjson.dumps(message)
    return (b"".join([head, *tail]), len(head)) if tail else (head, None)


def _requested(output: RequestedOutput) -> dict[str, object]:
    parameters: dict[str, object] = {}
    if output.binary is not None:
        parameters["binary_data"] = output.binary
    if output.classes:
        parameters["classification"] = output.classes
    return {"name": output.name, "parameters": parameters}


def encode_response(response: InferResponse, *, binary: bool = True) -> tuple[bytes, int | None]:
    """Returns the body and its header length, which is None if everything is JSON."""
    form = ReplyFormat([OutputFormat(output.name, output.datatype, binary) for output in response.outputs])
    writer = ReplyWriter(response.model_name, response.model_version)
    headers, body = writer.write(form, {output.name: output.data for output in response.outputs}, response.id)
    lengths = [int(value) for name, value in headers.pairs if name == HEADER_LENGTH]
    return body, lengths[0] if lengths else None


def decode_response(body: bytes, header_length: int | None = None) -> InferResponse:
    """Decodes a response. Raises BadMessage for bytes that are no response."""
    head = head_of(body, header_length)
    message = decode_response_head(head)
    offset = len(head)
    outputs: list[InferOutput] = []
    for index, output in enumerate(message.outputs):
        path = f"outputs[{index}]"
        check_datatype(output.datatype, path)
        shape = tuple(output.shape)
        count = element_count(shape, path)
        size = binary_data_size(output.parameters, path)
        if size is None:
            data = read_values(bytes(output.data), output.datatype, shape, path)
        else:
            check_size(output.datatype, count, size, path)
            if offset + size > len(body):
                raise BadTensor("the body ends before the data does", path=path)
            data = read_tensor(body, offset, size, output.datatype, shape, path)
            offset += size
        outputs.append(InferOutput(output.name, output.datatype, data))
    if offset != len(body):
        raise BadMessage(f"{len(body) - offset} bytes follow the last output")
    return InferResponse(message.model_name, message.model_version, tuple(outputs), message.id or "")
