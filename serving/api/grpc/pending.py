"""Requests over gRPC on their way to their answer: here, refused, or generating. The service makes them."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

from serving.api import exchange
from serving.api.admission.room import Held
from serving.api.beside import beside
from serving.api.dispatch import Dispatch, Plan
from serving.api.exchange import notify, now_ns
from serving.api.faults import INTERNAL, CallFailed, Fault, fault_of_error, fault_of_outcome
from serving.api.served import ServedModel
from serving.core.backend import Answers, Submitted
from serving.core.outcome import Completed, Outcome, Timings
from serving.protocol.errors import BadOutput
from serving.protocol.grpc_codec import GrpcLayout, GrpcReplyWriter, Split
from serving.protocol.messages import Tensor

_log = logging.getLogger(__name__)
REQUEST_ID, TRACEPARENT = exchange.REQUEST_ID.decode(), exchange.TRACEPARENT.decode()
RELAYED = "x-headway-relayed"  # on a call that the front has passed on
NO_TIMINGS = Timings(0, 0, 0, 1)


class Call(Protocol):
    """What a call brings besides its message."""

    def time_left_ns(self) -> int | None:
        """Until the client's deadline, never below 1; None without one."""
        ...

    def metadata(self, name: str) -> str:
        """The first value under a lower-case name, "" where there is none."""
        ...

    def request_id(self) -> str:
        """The client's `x-request-id`, or a name that was made up."""
        ...


class GrpcDispatch(Dispatch):
    """One model's operations for gRPC's messages."""

    def __init__(self, model: ServedModel) -> None:
        super().__init__(model)
        self._grpc_writer = GrpcReplyWriter(model.name, model.version)

    def plan_head(self, layout: GrpcLayout) -> Plan:
        return self._plan(layout)  # type: ignore[arg-type]  # it reads the same facts of both layouts

    def payload(self, layout: GrpcLayout, request: Split) -> dict[str, Tensor]:
        """The inputs by name. Raises BadMessage."""
        values = layout.read(request)
        return values | self.read_shared(layout.shared) if layout.shared else values

    def message(self, plan: Plan, completed: Completed, id: str) -> bytes:
        return self._grpc_writer.write(plan.form, self._answer(plan, completed), id)


class Planned(NamedTuple):
    """What a head decides: whose request it is, and everything that is done alike for all requests with it."""

    dispatch: GrpcDispatch
    plan: Plan
    layout: GrpcLayout


class Answering(Protocol):
    """A request on its way to its answer, here or in another process."""

    async def result(self) -> bytes:
        """The ModelInferResponse, or whatever the call answers. Raises CallFailed."""
        ...

    def cancel(self) -> None: ...


class RemoteStream(Protocol):
    """A stream of requests to a model that another process serves."""

    async def write(self, message: bytes) -> None:
        """Sends a request. Raises CallFailed."""
        ...

    async def read(self) -> bytes:
        """The next answer, a ModelStreamInferResponse. Raises CallFailed, also at the end."""
        ...

    def cancel(self) -> None: ...


class Relay(Protocol):
    """The way to models that other processes serve."""

    def __call__(self, method: str, message: bytes, model: str, call: Call) -> Answering:
        """Hands the call to the process that serves the model."""
        ...

    def stream(self, model: str, call: Call) -> RemoteStream: ...


class RefusedCall(NamedTuple):
    """A request that was refused before it was submitted."""

    fault: Fault

    async def result(self) -> bytes:
        raise CallFailed(self.fault)

    def cancel(self) -> None:
        """There is nothing to withdraw."""


class Pending(NamedTuple):
    """A submitted request on its way to an answer. request_id: of its call. began_ns: when its message was there.
    limit_ns: how long its client waits. held: its room, where it is large."""

    submitted: Submitted
    planned: Planned
    id: str
    request_id: str
    trace: str
    tenant: str
    began_ns: int
    limit_ns: int | None
    held: Held | None

    async def result(self) -> bytes:
        try:
            outcome = await self.submitted
            return await self.answer_beside(outcome) if self.takes_long(outcome) else self.answer(outcome)
        finally:
            self._give_back()

    def cancel(self) -> None:
        self.submitted.cancel()
        self._give_back()

    def _give_back(self) -> None:
        if self.held is not None:
            self.held.give_back()

    def takes_long(self, outcome: Outcome) -> bool:
        """Whether `answer_beside` is to be used, in place of `answer`."""
        return type(outcome) is Completed and self.planned.dispatch.writes_long(self.planned.plan, outcome)

    async def answer_beside(self, outcome: Outcome) -> bytes:
        """As `answer`; the message is written beside the event loop."""
        assert type(outcome) is Completed
        settled_ns = now_ns()
        dispatch, plan, _ = self.planned
        writing = beside(partial(dispatch.message, plan, outcome, self.id))
        try:
            await asyncio.wait([writing])
        finally:
            self._give_back()
        return self.answer(outcome, writing.result, settled_ns)

    def answer(self, outcome: Outcome, written: Callable[[], bytes] | None = None, settled_ns: int = 0) -> bytes:
        """A ModelInferResponse. Raises CallFailed. Tells the witnesses. written, settled_ns: where it has been written
        already, beside the loop, and since when."""
        settled_ns = settled_ns or now_ns()
        model = self.planned.dispatch.model
        status = 200
        try:
            if type(outcome) is not Completed:
                raise CallFailed(fault_of_outcome(outcome, self.limit_ns))
            message = written() if written else self.planned.dispatch.message(self.planned.plan, outcome, self.id)
            model.wire.encode.add(now_ns() - settled_ns)
            return message
        except CallFailed as failed:
            status = failed.fault.status
            raise
        except Exception as error:
            found = fault(error, model.name)
            status = found.status
            raise CallFailed(found) from None
        finally:
            self._give_back()
            if model.witnesses or status >= 500:
                named = self.id or self.request_id
                notify(model, "grpc", named, self.tenant, status, outcome, self.trace, self.began_ns, settled_ns)


class PendingGeneration(NamedTuple):
    """A request whose model is generating its answers."""

    answers: Answers
    planned: Planned
    id: str
    call: Call
    tenant: str
    began_ns: int
    held: Held | None

    def message(self, values: object) -> bytes:
        """A ModelInferResponse. Raises CallFailed."""
        dispatch, plan, _ = self.planned
        try:
            if not isinstance(values, dict):
                raise BadOutput(f"the model gave a {type(values).__name__}, not its outputs by name")
            return dispatch.message(plan, Completed(values, 0, NO_TIMINGS), self.id)
        except Exception as error:
            raise CallFailed(fault(error, dispatch.model.name)) from None

    def end(self, fault: Fault | None) -> None:
        """It is over, well or with this fault."""
        if self.held is not None:
            self.held.give_back()
        model = self.planned.dispatch.model
        if model.witnesses or fault is not None:
            status = 200 if fault is None else fault.status
            named, trace = self.id or self.call.request_id(), self.call.metadata(TRACEPARENT)
            notify(model, "grpc", named, self.tenant, status, self.answers.outcome, trace, self.began_ns, now_ns())


def fault(error: Exception, model: str) -> Fault:
    """What to tell the client; a bug of ours is logged."""
    if isinstance(error, CallFailed):
        return error.fault
    found = fault_of_error(error)
    if found is INTERNAL:
        _log.error("a call of %s failed by a bug of ours", model, exc_info=error)
    return found
