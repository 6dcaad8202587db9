"""Tests that messages recognised by the bytes before their values are decoded the same as all others."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.api.grpc.calls import NotHere
from serving.api.grpc.service import GrpcService
from serving.protocol.errors import BadMessage
from serving.protocol.pb import message
from serving.testing.backend import EchoBackend
from tests.api.conftest import model
from tests.api.grpc_serving import service_of
from tests.api.test_submitting import StreamCall

CALL = StreamCall()
DTYPES = {"FP32": np.float32, "INT64": np.int64, "UINT8": np.uint8}
MODELS = [("m", "FP32"), ("n", "FP32"), ("o", "INT64"), ("p", "UINT8")]  # names of the same length


def service() -> GrpcService:
    return service_of([model(name, ("x", datatype, (-1, -1)), backend=EchoBackend()) for name, datatype in MODELS])


def encoded(name: str, shape: tuple[int, int], id: str = "", **parameters: int) -> bytes:
    datatype = dict(MODELS)[name]
    request = message("ModelInferRequest")(model_name=name, id=id)
    request.inputs.add(name="x", datatype=datatype, shape=shape)
    for key, value in parameters.items():
        request.parameters[key].int64_param = value
    values = np.random.default_rng(len(id)).integers(0, 100, shape).astype(DTYPES[datatype])
    request.raw_input_contents.append(values.tobytes())
    content: bytes = request.SerializeToString()
    return content


def read(service: GrpcService, content: bytes) -> Any:
    """Returns a message's decoded facts and values, or the type and text of its error."""
    try:
        id, planned, payload = service._read(content, CALL)
    except (BadMessage, NotHere) as error:
        return type(error), str(error)
    values = {name: (tensor.dtype, tensor.shape, tensor.tobytes()) for name, tensor in payload.items()}
    return id, planned.dispatch.model.name, planned.plan.rows, planned.plan.priority, planned.plan.timeout_ns, values


requests = st.builds(
    encoded,
    st.sampled_from([name for name, _ in MODELS]),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.sampled_from(["", "7", "8"]),
    priority=st.integers(0, 2),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    content = bytearray(draw(requests))
    at = draw(st.integers(0, len(content) - 1))
    change = draw(st.sampled_from(["cut", "more", "other"]))
    if change == "cut":
        return bytes(content[:at])
    if change == "more":
        return bytes(content) + bytes(at + 1)
    content[at] ^= draw(st.integers(1, 255))
    return bytes(content)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(requests, damaged()), min_size=1, max_size=20))
def test_a_message_means_the_same_whatever_was_read_before(contents: list[bytes]) -> None:
    experienced = service()
    for content in contents:
        assert read(experienced, content) == read(service(), content)


def test_a_message_with_other_values_is_not_taken_apart_again(monkeypatch: pytest.MonkeyPatch) -> None:
    serving = service()
    first, second = np.full((2, 3), 1, np.float32), np.full((2, 3), 2, np.float32)
    content = encoded("m", (2, 3), "7")
    head = content[: -first.nbytes]
    serving._read(head + first.tobytes(), CALL)
    monkeypatch.setattr("serving.api.grpc.service.split", None)
    id, planned, payload = serving._read(head + second.tobytes(), CALL)
    assert (id, planned.dispatch.model.name, payload["x"].tolist()) == ("7", "m", second.tolist())


def test_values_are_read_as_they_were_sent_and_cannot_be_written_to() -> None:
    serving = service()
    for _ in range(2):
        _, _, payload = serving._read(encoded("m", (2, 3)), CALL)
        assert not payload["x"].flags.writeable


def test_what_is_kept_is_bounded() -> None:
    serving = service()
    for columns in range(1, 2000):
        serving._read(encoded("m", (1, columns)), CALL)
    assert len(serving._openings._starts) <= 256
    assert len(serving._openings._known) <= 512
