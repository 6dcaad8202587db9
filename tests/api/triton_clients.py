"""What tests with Triton's client have in common: connecting, and tensors of a request that lie in shared memory."""

import pytest
import tritonclient.http as over_http
import tritonclient.http.aio as over_http_aio
from tritonclient.utils import InferenceServerException

from models.reference import echo_spec
from models.spec import TensorSpec
from tests.house import House

TENSORS = (TensorSpec(name="x", datatype="FP32", shape=(-1, -1)), TensorSpec(name="t", datatype="BYTES", shape=(-1, 1)))
ECHO = echo_spec(inputs=TENSORS, outputs=TENSORS)


def connect(served: House, wire, **more: object):
    """A client of this wire: one of the four modules."""
    address = served.http if wire in (over_http, over_http_aio) else served.grpc
    return wire.InferenceServerClient(address, **more)


def shared_input(wire, name: str, shape: tuple[int, ...], datatype: str, region: str, byte_size: int, offset: int = 0):
    tensor = wire.InferInput(name, list(shape), datatype)
    tensor.set_shared_memory(region, byte_size, offset)
    return tensor


def shared_output(wire, name: str, region: str, byte_size: int, offset: int = 0):
    tensor = wire.InferRequestedOutput(name)
    tensor.set_shared_memory(region, byte_size, offset)
    return tensor


def failure(call, *arguments, **named) -> str:
    with pytest.raises(InferenceServerException) as caught:
        call(*arguments, **named)
    return f"{caught.value.status()} {caught.value.message()}"
