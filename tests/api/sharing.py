"""What tests of shared memory have in common: a model, and tensors of a request that lie in a region."""

import pytest
from tritonclient.utils import InferenceServerException

from models.reference import echo_spec
from models.spec import TensorSpec

TENSORS = (TensorSpec(name="x", datatype="FP32", shape=(-1, -1)), TensorSpec(name="t", datatype="BYTES", shape=(-1, 1)))
ECHO = echo_spec(inputs=TENSORS, outputs=TENSORS)


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
