"""Answers ModelStreamInfer: many requests in one call, answered in order, each by the model that it names.

Requests are submitted as they arrive, so that they can share batches. When STREAM_WINDOW requests or STREAM_BYTES bytes
wait for answers, no more are read. Requests to models of other processes are forwarded by `api/grpc/remote.py`.
"""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable
from functools import partial
from typing import Protocol

from serving.api.faults import CallFailed, Fault, fault_of_outcome
from serving.api.grpc.calls import NotHere
from serving.api.grpc.pending import Answering, Call, Pending, PendingGeneration, RefusedCall, Relay, fault
from serving.api.grpc.remote import EMPTY_FINAL, RemoteAnswer, RemoteModel
from serving.core.outcome import Cancelled, Completed
from serving.protocol.errors import BadMessage
from serving.protocol.grpc_codec import error_in_stream, in_stream
from serving.protocol.pb import decode, encode

STREAM_WINDOW = 256  # requests of one stream that wait for their answers
STREAM_BYTES = 64 << 20  # bytes of their messages, inflated; a single message may be larger


class Requests(Protocol):
    """Submits the requests of a stream. `GrpcService` implements it."""

    async def begin_in_stream(self, message: bytes, call: Call) -> Pending | PendingGeneration:
        """Decodes and submits a request. Raises BadMessage, NotHere, or CallFailed if there is no memory for it."""
        ...

    async def relay_for(self, absent: NotHere, call: Call) -> Relay | RefusedCall:
        """Returns the relay for a model that this process does not serve, or the refusal."""
        ...


class Conversation:
    """One ModelStreamInfer call. The error of a request is sent as a message of the stream, which goes on. If the
    client sent the metadata `triton_grpc_error: true`, the first error ends the call instead: `run` raises
    CallFailed."""

    def __init__(self, requests: Requests, send: Callable[[bytes], Awaitable[None]], call: Call) -> None:
        self._requests = requests
        self._send = send
        self._call = call
        self._is_strict = call.metadata("triton_grpc_error") == "true"
        self._waiting: asyncio.Queue[tuple[Answering, bytes] | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(STREAM_WINDOW)
        self._held_bytes = 0
        self._has_let_go = asyncio.Event()
        self._remote: dict[tuple[str, str], RemoteModel] = {}  # by model and version

    async def run(self, messages: AsyncIterable[bytes]) -> None:
        """Runs until the client has ended its side and all its requests are answered. Raises CallFailed."""
        try:
            async with asyncio.TaskGroup() as group:
                answers = group.create_task(self._answer())
                async for message in messages:
                    await self._room.acquire()
                    begun = await self._begin(message, group)
                    if isinstance(begun, PendingGeneration):
                        sending = group.create_task(self._send_generation(begun))
                        # A task that is cancelled before its first step never reaches its own call of `cancel`.
                        sending.add_done_callback(partial(_withdraw, begun))
                        continue
                    self._waiting.put_nowait((begun, message))
                    self._held_bytes += len(message)
                    while self._held_bytes > STREAM_BYTES:
                        self._has_let_go.clear()
                        await self._has_let_go.wait()
                self._waiting.put_nowait(None)
                await answers
                for remote in self._remote.values():
                    remote.close()
        except* CallFailed as failed:
            raise failed.exceptions[0] from None
        finally:
            while not self._waiting.empty():
                if (item := self._waiting.get_nowait()) is not None:
                    item[0].cancel()
            for remote in self._remote.values():
                remote.close()

    async def _begin(self, message: bytes, group: asyncio.TaskGroup) -> Answering | PendingGeneration:
        try:
            return await self._requests.begin_in_stream(message, self._call)
        except NotHere as absent:
            return await self._ask_remote(absent, message, group)
        except Exception as error:
            return RefusedCall(fault(error, "a model"))

    async def _ask_remote(self, absent: NotHere, message: bytes, group: asyncio.TaskGroup) -> Answering:
        key = absent.name, absent.version
        remote = self._remote.get(key)
        if remote is None or remote.is_over:
            relay = await self._requests.relay_for(absent, self._call)
            if isinstance(relay, RefusedCall):
                return relay
            remote = self._remote[key] = RemoteModel(relay.stream(absent.name, self._call), self._send)
            remote.reader = group.create_task(remote.read())
        return await remote.ask(message)

    async def _answer(self) -> None:
        while (item := await self._waiting.get()) is not None:
            answering, message = item
            try:
                if isinstance(answering, RemoteAnswer):
                    response = await answering.in_stream()
                else:
                    response = in_stream(await answering.result())
            except CallFailed as failed:
                if self._is_strict:
                    raise
                response = error_in_stream(failed.fault.text, *_named(message))
            finally:
                answering.cancel()
            if response:
                await self._send(response)
            self._room.release()
            self._held_bytes -= len(message)
            self._has_let_go.set()

    async def _send_generation(self, generation: PendingGeneration) -> None:
        """Sends the answers of a generation in order, as they arrive. Answers of other requests may be sent between
        them, as in Triton."""
        ended: Fault | None = fault_of_outcome(Cancelled())
        try:
            async for values in generation.answers:
                await self._send(in_stream(generation.message(values), is_final=False))
            outcome = generation.answers.outcome
            if type(outcome) is not Completed:
                raise CallFailed(fault_of_outcome(outcome))  # type: ignore[arg-type]
            if generation.planned.layout.parameters.get(EMPTY_FINAL):
                name = generation.planned.dispatch.model.name
                empty = {"model_name": name, "model_version": generation.planned.dispatch.model.version}
                await self._send(in_stream(encode("ModelInferResponse", empty | {"id": generation.id})))
            ended = None
        except CallFailed as failed:
            ended = failed.fault
            if self._is_strict:
                raise
            name = generation.planned.dispatch.model.name
            await self._send(error_in_stream(failed.fault.text, name, generation.id))
        finally:
            generation.answers.cancel()
            generation.end(ended)
            self._room.release()


def _withdraw(generation: PendingGeneration, sending: "asyncio.Task[None]") -> None:
    generation.answers.cancel()


def _named(message: bytes) -> tuple[str, str]:
    """Returns the model's name and the id of a request that failed; "" for both if the message cannot be decoded."""
    try:
        request = decode("ModelInferRequest", message)
    except BadMessage:
        return "", ""
    return request.model_name, request.id
