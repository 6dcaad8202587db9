"""Forwards the requests of one ModelStreamInfer stream to a model of another process, over one stream per model. So its
requests stay in order and can share batches there."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from serving.api.faults import CallFailed
from serving.api.grpc.pending import Answering, RefusedCall, RemoteStream, fault
from serving.protocol.errors import BadMessage
from serving.protocol.pb import decode, encode

EMPTY_FINAL = "triton_enable_empty_final_response"
FINAL = "triton_final_response"
# Appended to an encoded request, it adds this parameter (protobuf merges repeated fields): the end of every generation
# is reported then.
_TELL_THE_END = encode("ModelInferRequest", {"parameters": {EMPTY_FINAL: {"bool_param": True}}})


class RemoteAnswer:
    """The last answer to one forwarded request. Earlier answers of a generating model are sent to the client as they
    arrive. wants_empty: the client asked for an empty final response."""

    def __init__(self, id: str, *, wants_empty: bool) -> None:
        self.id = id
        self.wants_empty = wants_empty
        self.last: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def in_stream(self) -> bytes:
        """Waits for the last answer: a ModelStreamInferResponse, or b"" if the client needs none. Raises CallFailed."""
        return await self.last

    result = in_stream

    def cancel(self) -> None:
        """Does nothing: requests of a stream are only cancelled together, see `RemoteModel.close`."""


class RemoteModel:
    """One stream of requests to a model of another process.

    reader: the task that runs `read`, set by the owner. send: sends a message to the client.
    """

    reader: "asyncio.Task[None]"

    def __init__(self, stream: RemoteStream, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._stream = stream
        self._send = send
        self._waiting: list[RemoteAnswer] = []
        self.is_over = False

    async def ask(self, message: bytes) -> Answering:
        """Forwards a ModelInferRequest. Never raises: a failure is the result of what it returns."""
        try:
            request = decode("ModelInferRequest", message)
            wants_empty = request.parameters[EMPTY_FINAL].bool_param
            answer = RemoteAnswer(request.id, wants_empty=wants_empty)
            self._waiting.append(answer)
            await self._stream.write(message if wants_empty else message + _TELL_THE_END)
        except CallFailed as failed:
            self._end(failed)
        except BadMessage as error:
            return RefusedCall(fault(error, "a model"))
        return answer

    async def read(self) -> None:
        """Reads answers until the stream ends: sends those that are not final, settles requests by the final ones."""
        try:
            while True:
                answer = await self._stream.read()
                decoded = decode("ModelStreamInferResponse", answer)
                parameters = decoded.infer_response.parameters
                if not decoded.error_message and FINAL in parameters and not parameters[FINAL].bool_param:
                    await self._send(answer)
                else:
                    self._settle(decoded, answer)
        except CallFailed as failed:
            self._end(failed)

    def _settle(self, decoded: Any, answer: bytes) -> None:
        """Settles the request with the answer's id, or else the oldest one: answers come in the order of the requests,
        except those of generations."""
        id = decoded.infer_response.id
        waiting = next((one for one in self._waiting if one.id == id), self._waiting[0] if self._waiting else None)
        if waiting is None:
            return
        self._waiting.remove(waiting)
        is_empty = not decoded.error_message and not decoded.infer_response.outputs
        if not waiting.last.done():
            waiting.last.set_result(b"" if is_empty and not waiting.wants_empty else answer)

    def _end(self, failed: CallFailed) -> None:
        self.is_over = True
        waiting, self._waiting = self._waiting, []
        for answer in waiting:
            if not answer.last.done():
                answer.last.set_exception(failed)

    def close(self) -> None:
        self.is_over = True
        self.reader.cancel()
        self._stream.cancel()
