"""Seeded request bodies for a model, made from what the model says of its inputs. Equal seeds give equal bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.protocol.binary_codec import encode_request
from serving.protocol.messages import InferInput, InferRequest, TensorDescription
from serving.protocol.tensors import numpy_dtype

_WORDS = ("a", "batch", "is", "a", "bus", "leave", "half", "empty", "and", "the", "device", "idles")


@dataclass(frozen=True, slots=True)
class Payload:
    """A body and the headers it needs, ready for any number of shots."""

    body: bytes
    headers: Mapping[str, str]


def infer_payload(inputs: Sequence[InferInput]) -> Payload:
    """An inference request in binary form, which asks for a binary answer."""
    body, header_length = encode_request(InferRequest(tuple(inputs), parameters={"binary_data_output": True}))
    if header_length is None:
        return Payload(body, {"content-type": "application/json"})
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(header_length)}
    return Payload(body, headers)


def make_payloads(
    inputs: Sequence[TensorDescription], *, rows: int = 1, length: int = 16, count: int = 16, seed: int = 0
) -> list[Payload]:
    """`count` different requests of so many rows; other variable dimensions become `length`.

    Several, because a server that keeps answers would otherwise be measured answering one."""
    generator = np.random.default_rng(seed)
    return [
        infer_payload(
            [
                InferInput(tensor.name, tensor.datatype, _values(tensor, _shape(tensor, rows, length), generator))
                for tensor in inputs
            ]
        )
        for _ in range(count)
    ]


def _shape(tensor: TensorDescription, rows: int, length: int) -> tuple[int, ...]:
    return (rows, *(length if size < 0 else size for size in tensor.shape[1:]))


def _values(tensor: TensorDescription, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    if tensor.datatype == "BYTES":
        words = np.empty(shape, dtype=object)
        for position in np.ndindex(shape):
            words[position] = " ".join(generator.choice(_WORDS, size=8)).encode()
        return words
    dtype = numpy_dtype(tensor.datatype)
    if tensor.datatype == "BOOL":
        return generator.integers(0, 2, size=shape).astype(dtype)
    if "INT" in tensor.datatype:
        return generator.integers(0, 100, size=shape).astype(dtype)  # small: often indices into a table
    return generator.random(size=shape, dtype=np.float32).astype(dtype)


def inputs_of(metadata: Mapping[str, Any]) -> list[TensorDescription]:
    """The inputs in a model's metadata (`GET /v2/models/<name>`)."""
    return [TensorDescription(entry["name"], entry["datatype"], tuple(entry["shape"])) for entry in metadata["inputs"]]
