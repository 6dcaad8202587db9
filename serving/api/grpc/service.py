"""Answers inference calls over gRPC. Takes and returns encoded messages; independent of servers and connections.

`api/grpc/aio.py` serves it on grpc.aio, `api/grpc/connection.py` on this project's HTTP/2. Plans are cached by the
bytes of a request's head, as for HTTP. Calls other than inference are in `api/grpc/calls.py`.
"""

import re
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from functools import partial
from typing import Protocol, TypeVar

from serving.api.admission.gate import Action
from serving.api.admission.quota import counted
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
from serving.core.outcome import Outcome
from serving.names import NAME_CHARACTERS
from serving.protocol.errors import BadMessage
from serving.protocol.grpc_codec import GrpcLayout, split
from serving.protocol.grpc_pieces import reads_long
from serving.protocol.messages import Tensor
from serving.protocol.pb import HEALTH, SERVICE

__all__ = ["INFER", "STREAM", "STREAM_WINDOW", "WATCH", "GrpcService"]
INFER, STREAM, WATCH = f"/{SERVICE}/ModelInfer", f"/{SERVICE}/ModelStreamInfer", f"/{HEALTH}/Watch"

_A_NAME = re.compile(f"[{NAME_CHARACTERS}]+")  # a model's name that HAProxy and gRPC's metadata accept


T = TypeVar("T", covariant=True)
ReadMessage = tuple[str, Planned, dict[str, Tensor]]  # a request's id, its plan, its inputs by name


class Submitting(Protocol[T]):
    """Submits a decoded request. age_ns: its age at `began_ns`, when its decoding began, plus the time of decoding in a
    worker thread. held: its share of the memory for messages."""

    def __call__(self, read: ReadMessage, call: Call, age_ns: int, began_ns: int, held: Held | None) -> T: ...


class GrpcService:
    """The inference service of one process.

    served: the models of this process.
    tenant_header: name of the metadata that holds the tenant; "" for one tenant.
    relay: forwards calls about models that other processes serve; None to refuse them.
    paths: the paths of the unary calls other than ModelInfer.
    """

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
        self._gate = operations.gate
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

    async def infer(self, message: bytes, call: Call, age_ns: int = 0) -> tuple[bytes, Outcome | None]:
        """Computes a ModelInferRequest. Returns the ModelInferResponse, and how the request ended (None if
        another process has answered). Raises CallFailed. Cancelling the task withdraws
        the request. age_ns: age of the call when its headers were read; it counts towards the time limit."""
        answering = await self._begin(message, call, age_ns)
        answer = await answering.result()
        return answer, await answering.submitted if isinstance(answering, Pending) else None

    def takes_long(self, message: bytes) -> bool:
        """Returns True if decoding the message would block the event loop: pass it to `infer`, not to `submit`."""
        if len(message) <= LONG_BYTES:
            return False
        return self._has_texts or reads_long(message, LONG_BYTES)

    def submit(self, message: bytes, call: Call, age_ns: int = 0) -> Pending:
        """Decodes and submits a request on the event loop. Raises BadMessage, NotHere, or CallFailed if there is no
        memory for it. age_ns: see `infer`; 0 in a stream, since its requests are younger than the call."""
        began_ns = now_ns()
        held = self._held(message, call) if len(message) > COUNTED_BYTES else None
        try:
            return self._hand_over(self._read(message, call), call, age_ns, began_ns, held)
        except Exception:
            if held is not None:
                held.give_back()
            raise

    def _held(self, message: bytes, call: Call) -> Held:
        """Reserves memory for a large message. Raises CallFailed if there is none left, or for want of a credential."""
        held = self._holder(call)
        held.take(len(message))
        return held

    def _holder(self, call: Call) -> Held:
        caller = self._gate.check(call.peer, Action.READ)
        return Held(self._room, caller.tenant or call.metadata(self._tenant_header))

    def arriving(self, call: Call) -> Held | None:
        """Counts a call among those of its tenant that are arriving; None without tenants. Raises CallFailed if there
        are too many, or for want of a credential."""
        if not self._gate.asks and not self._tenant_header:
            return None
        held = self._holder(call)
        held.arrive()
        return held

    async def read_and_submit(self, message: bytes, call: Call, age_ns: int = 0) -> Pending:
        """Does the same as `submit`, but decodes a message that takes long in a worker thread."""
        return await self._read_for(self._hand_over, message, call, age_ns)

    async def begin_in_stream(self, message: bytes, call: Call) -> Pending | PendingGeneration:
        """Does the same as `read_and_submit` for a request in a stream, where a generating model may give any number of
        answers."""
        return await self._read_for(self._begin_or_hand_over, message, call, 0)

    async def _read_for(self, submit: Submitting[T], message: bytes, call: Call, age_ns: int) -> T:
        """Decodes a message, in a worker thread if it takes long, and submits it. Its share of the memory for messages
        is released if that fails, otherwise when the request ends."""
        began_ns = now_ns()
        held = self._held(message, call) if len(message) > COUNTED_BYTES else None
        try:
            if self.takes_long(message):
                read = await beside(partial(self._read, message, call))
                age_ns += now_ns() - began_ns
            else:
                read = self._read(message, call)
            return submit(read, call, age_ns, began_ns, held)
        except BaseException:  # also if the call is cancelled while its message is decoded
            if held is not None:
                held.give_back()
            raise

    def _read(self, message: bytes, call: Call) -> ReadMessage:
        """Decodes a request. May be called from any thread. Raises BadMessage, NotHere, or CallFailed."""
        known = self._openings.find(message)
        if known is not None:
            return known.id, known.planned, known.read(message)
        try:
            request = split(message)
            planned = self._plan(request.head, call)
        except BadMessage:
            self._gate.check(call.peer, Action.READ)  # who has no credential learns that first
            raise
        dispatch, plan, layout = planned
        try:
            payload = layout.read(request)
        except BadMessage:
            self._tenant(call, layout)  # the plan may be known from another caller
            raise
        if plan.form.shared or layout.shared:
            tenant = self._tenant(call, layout)
            planned = planned._replace(plan=dispatch.placed(plan, tenant))
            payload |= dispatch.read_shared(layout.shared, tenant)
        self._openings.keep(request, planned)
        return request.id, planned, payload

    def _hand_over(self, read: ReadMessage, call: Call, age_ns: int, began_ns: int, held: Held | None) -> Pending:
        id, planned, payload = read
        dispatch, plan, _ = planned
        limit_ns = _limit_ns(plan, call)
        tenant = self._tenant(call, planned.layout)
        submitted = counted(dispatch.model.quota, tenant, dispatch.hand_over, plan, payload, tenant, limit_ns, age_ns)
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
        tenant = self._tenant(call, planned.layout)
        limit_ns = _limit_ns(plan, call)
        answers = counted(dispatch.model.quota, tenant, dispatch.generate, plan, payload, tenant, limit_ns)
        dispatch.model.wire.decode.add(now_ns() - began_ns)
        return PendingGeneration(answers, planned, id, call, tenant, began_ns, held)

    def _tenant(self, call: Call, layout: GrpcLayout) -> str:
        """Returns the tenant of a caller that may predict with this model. Raises CallFailed."""
        if self._gate.asks:
            return self._gate.check(call.peer, Action.PREDICT, layout.model_name, layout.model_version).tenant
        return call.metadata(self._tenant_header) if self._tenant_header else ""

    def _plan(self, head: bytes, call: Call) -> Planned:
        planned = self._planned.get(head)
        if planned is None:
            layout = GrpcLayout(head)
            self._tenant(call, layout)  # what is wrong with a request tells about the model
            dispatch = self._dispatches.get(layout.model_name)
            if dispatch is None or layout.model_version not in ("", dispatch.model.version):
                raise NotHere(layout.model_name, layout.model_version)
            planned = Planned(dispatch, dispatch.plan_head(layout), layout)
            if layout.is_reusable:
                self._planned.keep(head, planned)
        return planned

    async def stream(
        self, messages: AsyncIterable[bytes], send: Callable[[bytes], Awaitable[None]], call: Call
    ) -> None:
        """Answers all requests of a ModelStreamInfer stream. Raises CallFailed. See `Conversation`."""
        self._gate.check(call.peer, Action.READ)  # and each request again, for its model
        arriving = self.arriving(call)  # as long as the stream is open
        try:
            await Conversation(self, send, call).run(messages)
        finally:
            if arriving is not None:
                arriving.arrived()

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

        The load balancer routes calls by their model. Two kinds of calls need forwarding nevertheless: the front gets
        those whose model the load balancer could not read or reach; a replica gets requests of streams that began with
        another model or version, and passes them to the front if it does not know that itself.
        """
        try:
            self._gate.check(call.peer, Action.READ, absent.name, absent.version)
        except CallFailed as failed:
            return RefusedCall(failed.fault)
        known = await self._server.models()
        for model in known:
            if model.is_called(absent.name, absent.version):
                if not model.wanted:
                    return RefusedCall(unavailable_model(absent.name))
                # HAProxy routes a forwarded call back to this process if it knows no replica of the model.
                if not model.is_ready or call.metadata(RELAYED):
                    return RefusedCall(not_ready(absent.name, model.state))
                if self._relay is not None:
                    return self._relay
        is_for_front = self._dispatches and not any(model.is_called(absent.name, absent.version) for model in known)
        if is_for_front and self._relay is not None and not call.metadata(RELAYED) and _A_NAME.fullmatch(absent.name):
            return self._relay
        return RefusedCall(unknown_model(absent.name, absent.version))

    # -- other calls ------------------------------------------------------------------------------------------

    async def answer(self, method: str, message: bytes, call: Call) -> bytes:
        """Answers a unary call other than ModelInfer. method: its path. Raises CallFailed."""
        try:
            return await self._calls.answer(method, message, call.peer)
        except CallFailed:
            raise
        except NotHere as absent:
            answering = await self._elsewhere(absent, method, message, call)
        except Exception as error:
            answering = RefusedCall(fault(error, method))
        return await answering.result()


def _limit_ns(plan: Plan, call: Call) -> int | None:
    """Returns the shorter of the request's time limit and the time left until the call's deadline; None if neither."""
    own, left = plan.timeout_ns, call.time_left_ns()
    if own is None:
        return left
    return own if left is None or own < left else left
