"""The common parts of tests with Triton's client: connections, and tensors in shared memory."""

from collections.abc import Callable
from typing import Any

import pytest
import tritonclient.http as over_http
import tritonclient.http.aio as over_http_aio
from tritonclient.utils import InferenceServerException

from models.reference import echo_spec
from models.spec import TensorSpec
from tests.house import House

TENSORS = (TensorSpec(name="x", datatype="FP32", shape=(-1, -1)), TensorSpec(name="t", datatype="BYTES", shape=(-1, 1)))
ECHO = echo_spec(inputs=TENSORS, outputs=TENSORS)


def connect(served: House, wire: Any, **more: object) -> Any:
    """Returns a connected client. wire: one of the four modules of Triton's client."""
    address = served.http if wire in (over_http, over_http_aio) else served.grpc
    return wire.InferenceServerClient(address, **more)


def shared_input(
    wire: Any, name: str, shape: tuple[int, ...], datatype: str, region: str, byte_size: int, offset: int = 0
) -> Any:
    tensor = wire.InferInput(name, list(shape), datatype)
    tensor.set_shared_memory(region, byte_size, offset)
    return tensor


def shared_output(wire: Any, name: str, region: str, byte_size: int, offset: int = 0) -> Any:
    tensor = wire.InferRequestedOutput(name)
    tensor.set_shared_memory(region, byte_size, offset)
    return tensor


def failure(call: Callable[..., object], *arguments: object, **named: object) -> str:
    with pytest.raises(InferenceServerException) as caught:
        call(*arguments, **named)
    return f"{caught.value.status()} {caught.value.message()}"
