"""The requests of one client stream to a model that another process serves. They go over one stream to that process, so
that they keep their order and share batches there."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from serving.api.faults import CallFailed
from serving.api.grpc.pending import Answering, RefusedCall, RemoteStream, fault
from serving.protocol.errors import BadMessage
from serving.protocol.pb import decode, encode

EMPTY_FINAL = "triton_enable_empty_final_response"
FINAL = "triton_final_response"
# Appended to an encoded request, this adds a parameter: the remote process then reports the end of every generation.
_WITH_EMPTY_FINAL = encode("ModelInferRequest", {"parameters": {EMPTY_FINAL: {"bool_param": True}}})


class RemoteAnswer:
    """The last answer to one request. Earlier answers, of a generating model, are passed on as they arrive."""

    def __init__(self, id: str, *, wants_empty: bool) -> None:
        self.id = id
        self.wants_empty = wants_empty
        self.last: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def in_stream(self) -> bytes:
        """Returns a ModelStreamInferResponse, or b"" if there is nothing to pass on. Raises CallFailed."""
        return await self.last

    result = in_stream

    def cancel(self) -> None:
        """Does nothing: only the whole stream can be cancelled, see `RemoteModel.close`."""


class RemoteModel:
    """The stream to one remote model. `reader`: the task that runs `read`. send: sends an answer to the client."""

    reader: "asyncio.Task[None]"

    def __init__(self, stream: RemoteStream, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._stream = stream
        self._send = send
        self._waiting: list[RemoteAnswer] = []
        self.is_over = False

    async def ask(self, message: bytes) -> Answering:
        try:
            request = decode("ModelInferRequest", message)
            wants_empty = request.parameters[EMPTY_FINAL].bool_param
            answer = RemoteAnswer(request.id, wants_empty=wants_empty)
            self._waiting.append(answer)
            await self._stream.write(message if wants_empty else message + _WITH_EMPTY_FINAL)
        except CallFailed as failed:
            self._end(failed)
        except BadMessage as error:
            return RefusedCall(fault(error, "a model"))
        return answer

    async def read(self) -> None:
        """Passes answers on until the stream ends."""
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
        """Settles the request with the answer's id, else the oldest: answers come in order except for generations."""
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
