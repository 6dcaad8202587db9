"""The Open Inference Protocol over HTTP/1.1: keep-alive connections, one request at a time on each.

`binary` and `json` are the protocol's two forms; `raw` posts the bytes of the only input to the URL itself, for
servers without this protocol."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from time import perf_counter_ns
from urllib.parse import quote

from loadtest.wires import Address, Flight, NoAnswer, NoMetadata
from loadtest.wires.answer import Answer, AnswerReader, BadAnswer
from serving.protocol.binary_codec import encode_request
from serving.protocol.messages import InferRequest, TensorDescription
from serving.protocol.tensors import as_bytes, write_tensor

_ERROR_LIMIT = 200


class HttpWire:
    """Sends requests on one connection per request in flight; the shooter limits their number."""

    def __init__(self, address: Address, form: str) -> None:
        self._address = address
        self._form = form
        self._idle: list[Connection] = []

    async def describe(self, model: str) -> list[TensorDescription]:
        if self._form == "raw":
            return []
        path, flight = f"/v2/models/{quote(model)}", Flight()
        try:
            answer = await self._exchange(message(self._address, "GET", path, {}), flight)
        except NoAnswer as error:
            raise NoMetadata(f"http://{self._address.authority}{path} does not answer: {error}") from None
        if answer.status != 200:
            raise NoMetadata(f"http://{self._address.authority}{path} answers {answer.status}: {said(answer)}")
        try:
            return inputs_of(json.loads(answer.body))
        except (KeyError, TypeError, ValueError) as error:
            raise NoMetadata(f"{path} does not describe a model's inputs: {error!r}") from error

    def prepare(self, model: str, request: InferRequest, headers: Mapping[str, str]) -> bytes:
        path, all_headers, body = post(self._address, self._form, model, request, headers)
        return message(self._address, "POST", path, all_headers, body)

    async def exchange(self, prepared: object, flight: Flight) -> None:
        assert isinstance(prepared, bytes)
        answer = await self._exchange(prepared, flight)
        flight.status = answer.status
        if answer.status >= 400:
            flight.error = said(answer)

    async def _exchange(self, request: bytes, flight: Flight) -> Answer:
        connection = self._take_idle() or await connect(self._address)
        try:
            return await connection.exchange(request, flight)
        finally:
            if connection.is_open:
                self._idle.append(connection)

    def _take_idle(self) -> "Connection | None":
        # The connection used last is the least likely to have been closed by the server.
        while self._idle:
            if (connection := self._idle.pop()).is_open:
                return connection
        return None

    async def close(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()


class Connection(asyncio.Protocol):
    """One connection, for one exchange at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._reader = AnswerReader()
        self._waiter: asyncio.Future[Answer] | None = None
        self._flight = Flight()

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def exchange(self, request: bytes, flight: Flight) -> Answer:
        """Sends a request and returns its answer. Raises NoAnswer; after it, or a cancellation, the connection is
        closed."""
        if self._transport is None or self._transport.is_closing():
            raise NoAnswer("connection closed while idle")
        self._reader, self._flight = AnswerReader(), flight
        self._waiter = asyncio.get_running_loop().create_future()
        flight.sent_ns = perf_counter_ns()
        self._transport.write(request)
        try:
            answer = await self._waiter
        except BaseException:
            self.close()
            raise
        finally:
            self._waiter = None
        if not answer.keeps:
            self.close()
        return answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()  # an orderly close would first wait until its buffer is written

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        # Taken first: the time after it is the generator's, not the server's.
        now_ns = perf_counter_ns()
        if self._waiter is None or self._waiter.done():
            self.close()  # an answer without a request
            return
        if self._flight.first_byte_ns is None:
            self._flight.first_byte_ns = now_ns
        try:
            answer = self._reader.feed(data)
        except BadAnswer as error:
            self._waiter.set_exception(NoAnswer(f"bad answer: {error}"))
            return
        if answer is not None:
            self._flight.done_ns = now_ns
            self._waiter.set_result(answer)

    def connection_lost(self, error: Exception | None) -> None:
        if self._waiter is None or self._waiter.done():
            return
        if answer := self._reader.end():
            self._flight.done_ns = perf_counter_ns()
            self._waiter.set_result(answer)
        else:
            how = "reset" if error else "closed before the answer was whole"
            self._waiter.set_exception(NoAnswer(f"connection lost: {how}"))


async def connect(address: Address) -> Connection:
    """Opens a connection. Raises NoAnswer with the reason."""
    try:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, address.host, address.port)
    except OSError as error:
        reason = "refused" if isinstance(error, ConnectionRefusedError) else str(error)
        raise NoAnswer(f"connection {reason}") from error
    return connection


def post(
    address: Address, form: str, model: str, request: InferRequest, headers: Mapping[str, str]
) -> tuple[str, dict[str, str], bytes]:
    """Returns (path, headers, body) of an inference request in one of the forms `binary`, `json` and `raw`."""
    if form == "raw":
        return address.path, dict(headers), raw_body(request)
    if form == "json":
        request = replace(request, inputs=tuple(replace(tensor, binary=False) for tensor in request.inputs))
    else:
        request = replace(request, parameters={**request.parameters, "binary_data_output": True})
    body, head_length = encode_request(request)
    known = {"content-type": "application/json" if head_length is None else "application/octet-stream"}
    if head_length is not None:
        known["inference-header-content-length"] = str(head_length)
    return f"/v2/models/{quote(model)}/infer", {**known, **headers}, body


def message(address: Address, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """Returns a whole request, as it is written to the connection."""
    lines = [f"{method} {path} HTTP/1.1", f"host: {address.authority}", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def raw_body(request: InferRequest) -> bytes:
    """Returns the bytes of the only input; a single element of BYTES without the protocol's length prefix."""
    data = request.inputs[0].data
    if request.inputs[0].datatype == "BYTES" and data.size == 1:
        return as_bytes(data.flat[0])
    written = write_tensor(data)
    return written if isinstance(written, bytes) else written.tobytes()


def said(answer: Answer) -> str:
    """Returns the server's error text, from the protocol's error object if the body is one."""
    text = answer.body[: 4 * _ERROR_LIMIT].decode(errors="replace")
    with suppress(ValueError, KeyError, TypeError):  # another body is used as it is
        text = str(json.loads(text)["error"])
    return text.strip()[:_ERROR_LIMIT] or f"status {answer.status} without a body"


def inputs_of(metadata: Mapping[str, object]) -> list[TensorDescription]:
    """Returns the inputs in a model's metadata (`GET /v2/models/<name>`)."""
    entries = metadata["inputs"]
    assert isinstance(entries, list)
    return [TensorDescription(entry["name"], entry["datatype"], tuple(entry["shape"])) for entry in entries]
