"""Inference over gRPC, independent of server and connection: messages come in as bytes and are answered as bytes.

`aio.py` puts the service on grpc.aio, `connection.py` on the project's own HTTP/2. Plans are cached by the bytes of a
request's head, as for HTTP. All other calls are in `calls.py`.
"""

import re
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from functools import partial
from typing import Protocol, TypeVar

from serving.api.admission.gate import Caller
from serving.api.admission.room import COUNTED_BYTES, Held, Room
from serving.api.beside import LONG_BYTES, beside
from serving.api.dispatch import Plan
from serving.api.exchange import now_ns
from serving.api.faults import CallFailed, not_ready, unavailable_model, unknown_model
from serving.api.grpc.calls import GrpcCalls, NotHere
from serving.api.grpc.openings import Openings
from serving.api.grpc.pending import (
    RELAYED,
    TRACEPARENT,
    Answering,
    Call,
    GrpcDispatch,
    Pending,
    PendingGeneration,
    Planned,
    RefusedCall,
    Relay,
    fault,
)
from serving.api.grpc.stream import STREAM_WINDOW, Conversation
from serving.api.operations import Operations
from serving.api.recall import Recall
from serving.api.served import ServedModel
from serving.names import NAME_CHARACTERS
from serving.protocol.grpc_codec import GrpcLayout, split
from serving.protocol.grpc_pieces import reads_long
from serving.protocol.messages import Tensor
from serving.protocol.pb import HEALTH, SERVICE

__all__ = ["INFER", "STREAM", "STREAM_WINDOW", "WATCH", "GrpcService"]
INFER, STREAM, WATCH = f"/{SERVICE}/ModelInfer", f"/{SERVICE}/ModelStreamInfer", f"/{HEALTH}/Watch"

_A_NAME = re.compile(f"[{NAME_CHARACTERS}]+")  # a model name that HAProxy and gRPC metadata accept


T = TypeVar("T", covariant=True)
ReadMessage = tuple[str, Planned, dict[str, Tensor]]  # a request's id, its plan, its inputs by name


class Submitting(Protocol[T]):
    """Submits a parsed request. age_ns: its age when it is submitted. began_ns: when parsing began."""

    def __call__(self, read: ReadMessage, call: Call, age_ns: int, began_ns: int, held: Held | None) -> T: ...


class GrpcService:
    """Answers all calls. `served`: the models of this process. `tenant_header`: the metadata whose value names the
    tenant, "" for a single tenant. `relay`: forwards calls about models that other processes serve. `paths`: the
    methods that `answer` takes."""

    def __init__(
        self,
        served: Iterable[ServedModel],
        operations: Operations,
        *,
        tenant_header: str = "",
        relay: Relay | None = None,
    ) -> None:
        self._relay = relay
        self._dispatches = {model.name: GrpcDispatch(model) for model in served}
        self._server = operations
        self._tenant_header = tenant_header.lower()
        self._planned: Recall[Planned] = Recall()
        self._openings = Openings()
        self._room = next((dispatch.model.room for dispatch in self._dispatches.values()), Room())
        inputs = [tensor for dispatch in self._dispatches.values() for tensor in dispatch.model.inputs]
        self._has_texts = any(tensor.datatype == "BYTES" for tensor in inputs)
        self._calls = GrpcCalls(self._dispatches, operations)
        self.paths = self._calls.methods
        self.watch_health = self._calls.watch_health

    # -- inference --------------------------------------------------------------------------------------------

    async def infer(self, message: bytes, call: Call, age_ns: int = 0) -> bytes:
        """Returns a ModelInferResponse. Raises CallFailed. Cancelling withdraws the request. age_ns: see `submit`."""
        return await (await self._begin(message, call, age_ns)).result()

    def takes_long(self, message: bytes) -> bool:
        """Returns whether parsing the message takes long, so that it has to go to `infer`, which uses a thread."""
        if len(message) <= LONG_BYTES:
            return False
        return self._has_texts or reads_long(message, LONG_BYTES)

    def submit(self, message: bytes, call: Call, age_ns: int = 0) -> Pending:
        """Parses and submits a request on the event loop. Raises BadMessage, NotHere, or CallFailed (no room).

        age_ns: age of the request; 0 in a stream, since the arrival of the stream says nothing about its requests.
        """
        began_ns = now_ns()
        held = self._held(message) if len(message) > COUNTED_BYTES else None
        try:
            return self._hand_over(self._read(message), call, age_ns, began_ns, held)
        except Exception:
            if held is not None:
                held.give_back()
            raise

    def _held(self, message: bytes) -> Held:
        """Counts the memory of a large message. Raises CallFailed if there is no room."""
        held = Held(self._room)
        held.take(len(message))
        return held

    async def read_and_submit(self, message: bytes, call: Call, age_ns: int = 0) -> Pending:
        """Parses and submits a request, in a thread if parsing takes long. Raises the same errors as `submit`."""
        return await self._read_for(self._hand_over, message, call, age_ns)

    async def begin_in_stream(self, message: bytes, call: Call) -> Pending | PendingGeneration:
        """Parses and submits a request of a stream; a generating model may give any number of answers."""
        return await self._read_for(self._begin_or_hand_over, message, call, 0)

    async def _read_for(self, submit: Submitting[T], message: bytes, call: Call, age_ns: int) -> T:
        """Parses a message and submits it. Its memory stays counted until the request ends or cannot be submitted."""
        began_ns = now_ns()
        held = self._held(message) if len(message) > COUNTED_BYTES else None
        try:
            if self.takes_long(message):
                read = await beside(partial(self._read, message))
                age_ns += now_ns() - began_ns
            else:
                read = self._read(message)
            return submit(read, call, age_ns, began_ns, held)
        except BaseException:  # also where the client has left
            if held is not None:
                held.give_back()
            raise

    def _read(self, message: bytes) -> ReadMessage:
        """Parses a message. May run in any thread. Raises BadMessage, NotHere, or CallFailed."""
        known = self._openings.find(message)
        if known is not None:
            return known.id, known.planned, known.read(message)
        request = split(message)
        planned = self._plan(request.head)
        payload = planned.dispatch.payload(planned.layout, request)
        self._openings.keep(request, planned)
        return request.id, planned, payload

    def _hand_over(self, read: ReadMessage, call: Call, age_ns: int, began_ns: int, held: Held | None) -> Pending:
        id, planned, payload = read
        dispatch, plan, _ = planned
        limit_ns = _limit_ns(plan, call)
        tenant = self._tenant(call)
        submitted = dispatch.hand_over(plan, payload, tenant, limit_ns, age_ns)
        dispatch.model.wire.decode.add(now_ns() - began_ns)
        request_id, trace = call.request_id(), call.metadata(TRACEPARENT)
        return Pending(submitted, planned, id, request_id, trace, tenant, began_ns, limit_ns, held)

    def _begin_or_hand_over(
        self, read: ReadMessage, call: Call, age_ns: int, began_ns: int, held: Held | None
    ) -> Pending | PendingGeneration:
        id, planned, payload = read
        dispatch, plan, _ = planned
        if dispatch.model.generator is None:
            return self._hand_over(read, call, age_ns, began_ns, held)
        tenant = self._tenant(call)
        answers = dispatch.generate(plan, payload, tenant, _limit_ns(plan, call))
        dispatch.model.wire.decode.add(now_ns() - began_ns)
        return PendingGeneration(answers, planned, id, call, tenant, began_ns, held)

    def _tenant(self, call: Call) -> str:
        return call.metadata(self._tenant_header) if self._tenant_header else ""

    def _plan(self, head: bytes) -> Planned:
        planned = self._planned.get(head)
        if planned is None:
            layout = GrpcLayout(head)
            dispatch = self._dispatches.get(layout.model_name)
            if dispatch is None or layout.model_version not in ("", dispatch.model.version):
                raise NotHere(layout.model_name, layout.model_version)
            planned = Planned(dispatch, dispatch.plan_head(layout), layout)
            if layout.is_reusable:
                self._planned.keep(head, planned)
        if planned.plan.form.shared:
            return planned._replace(plan=planned.dispatch.placed(planned.plan))
        return planned

    async def stream(
        self, messages: AsyncIterable[bytes], send: Callable[[bytes], Awaitable[None]], call: Call
    ) -> None:
        """Answers a stream of requests. Raises CallFailed. See `Conversation`."""
        await Conversation(self, send, call).run(messages)

    async def _begin(self, message: bytes, call: Call, age_ns: int = 0) -> Answering:
        try:
            return await self.read_and_submit(message, call, age_ns)
        except NotHere as absent:
            return await self._elsewhere(absent, INFER, message, call)
        except Exception as error:
            return RefusedCall(fault(error, "a model"))

    async def _elsewhere(self, absent: NotHere, method: str, message: bytes, call: Call) -> Answering:
        relay = await self.relay_for(absent, call)
        return relay if isinstance(relay, RefusedCall) else relay(method, message, absent.name, call)

    async def relay_for(self, absent: NotHere, call: Call) -> "Relay | RefusedCall":
        """Returns the relay for a call about a model that this process does not serve, or the refusal.

        The load balancer routes calls by their model. A call reaches the front if the load balancer could not read or
        reach its model, and a replica if it is in a stream that began with another model. A replica passes calls about
        models that it does not know on to the front, which knows all.
        """
        known = await self._server.models()
        for model in known:
            if model.is_called(absent.name, absent.version):
                if not model.wanted:
                    return RefusedCall(unavailable_model(absent.name))
                # A call that was passed on comes back here if HAProxy knows no replica of the model.
                if not model.is_ready or call.metadata(RELAYED):
                    return RefusedCall(not_ready(absent.name, model.state))
                if self._relay is not None:
                    return self._relay
        of_front = self._dispatches and all(model.name != absent.name for model in known)
        if of_front and self._relay is not None and not call.metadata(RELAYED) and _A_NAME.fullmatch(absent.name):
            return self._relay
        return RefusedCall(unknown_model(absent.name, absent.version))

    # -- other calls ------------------------------------------------------------------------------------------

    async def answer(self, method: str, message: bytes, call: Call) -> bytes:
        """Returns the response to any other unary call. method: its path. Raises CallFailed."""
        try:
            return await self._calls.answer(method, message, Caller(call.metadata))
        except CallFailed:
            raise
        except NotHere as absent:
            answering = await self._elsewhere(absent, method, message, call)
        except Exception as error:
            answering = RefusedCall(fault(error, method))
        return await answering.result()


def _limit_ns(plan: Plan, call: Call) -> int | None:
    """Returns the shorter of the request's own timeout and the time left of its call, None if there is neither."""
    own, left = plan.timeout_ns, call.time_left_ns()
    if own is None:
        return left
    return own if left is None or own < left else left
