"""Calls over gRPC with encoded messages, for tests: what a call answered, as plain values."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import grpc
import numpy as np

from serving.protocol.pb import HEALTH, SERVICE, encode, pool

OF_THE_CALL = {"x-request-id"}  # trailers that differ from call to call


class Answer(NamedTuple):
    """The answer to a call. code: its status, `OK` if it succeeded. trailers: without those of the call alone."""

    code: str
    text: str
    messages: tuple[bytes, ...]
    trailers: tuple[tuple[str, str], ...]


def methods() -> dict[str, Any]:
    """Returns the descriptor of every method of both services, by its path."""
    found: dict[str, Any] = {}
    for service in (SERVICE, HEALTH):
        found |= {f"/{service}/{each.name}": each for each in pool().FindServiceByName(service).methods}
    return found


def message_for(path: str, model: str) -> bytes:
    """Returns a request that names this model wherever a request of this method can name one."""
    if path.endswith("Infer"):
        return infer(model)
    kind = methods()[path].input_type
    named = next((field.name for field in kind.fields if field.name in ("model_name", "service")), "name")
    name = kind.full_name if kind.full_name.startswith("grpc.") else kind.name
    values: dict[str, Any] = {named: "a" if "SharedMemory" in path else model}
    if path.endswith("TraceSetting"):
        values["settings"] = {"trace_rate": {"value": ["1"]}}
    if path.endswith("LogSettings"):
        values["settings"] = {"log_info": {"bool_param": True}}
    return encode(name, values)


def infer(model: str, raw: bytes | None = None, **more: Any) -> bytes:
    """Returns a request to a linear model. raw: the bytes of its input, None for good ones. more: further fields."""
    values = {"model_name": model, "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 16]}]} | more
    good = np.zeros((1, 16), np.float32).tobytes()
    # The contents are appended as bytes: field 7 of the message.
    raw = good if raw is None else raw
    return encode("ModelInferRequest", values) + bytes((7 << 3 | 2, len(raw))) + raw


class Caller:
    """A client on one connection."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def call(self, path: str, message: bytes, headers: Iterable[tuple[str, str]] = ()) -> Answer:
        """Sends a message as a call of its own. Of an endless answer, only the first message is awaited."""
        metadata = [*headers, ("triton_grpc_error", "true")] if path.endswith("StreamInfer") else [*headers]
        method = methods()[path]
        try:
            if method.client_streaming:
                running = self._channel.stream_stream(path)(iter([message]), metadata=metadata, timeout=20)
                return Answer("OK", "", tuple(running), _own(running))
            if method.server_streaming:
                running = self._channel.unary_stream(path)(message, metadata=metadata, timeout=20)
                first = next(iter(running))
                running.cancel()
                return Answer("OK", "", (first,), ())
            answer, running = self._channel.unary_unary(path).with_call(message, metadata=metadata, timeout=20)
            return Answer("OK", "", (answer,), _own(running))
        except grpc.RpcError as error:
            failed: Any = error
            return Answer(failed.code().name, failed.details(), (), _own(failed))

    def stream(self, messages: Iterable[bytes], headers: Iterable[tuple[str, str]] = ()) -> Iterator[bytes]:
        """Opens a ModelStreamInfer call and yields its answers as they come."""
        yield from self._channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(
            iter(messages), metadata=[*headers], timeout=20
        )


def _own(call: Any) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, value) for key, value in call.trailing_metadata() or () if key not in OF_THE_CALL))


@contextmanager
def calling(address: str) -> Iterator[Caller]:
    with grpc.insecure_channel(address) as channel:
        yield Caller(channel)
