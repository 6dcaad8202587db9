"""The states of a gRPC request that `GrpcService` has begun: submitted, generating, or refused."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

from serving.api import exchange
from serving.api.admission.gate import Peer
from serving.api.admission.room import Held
from serving.api.beside import beside
from serving.api.dispatch import Dispatch, Plan
from serving.api.exchange import notify, now_ns
from serving.api.faults import INTERNAL, CallFailed, Fault, fault_of_error, fault_of_outcome
from serving.api.served import ServedModel
from serving.core.backend import Answers, Submitted
from serving.core.outcome import Completed, Outcome, Timings
from serving.protocol.errors import BadOutput
from serving.protocol.grpc_codec import GrpcLayout, GrpcReplyWriter

_log = logging.getLogger(__name__)
REQUEST_ID, TRACEPARENT = exchange.REQUEST_ID.decode(), exchange.TRACEPARENT.decode()
RELAYED = "x-headway-relayed"  # metadata of a call that the front or a replica has forwarded
NO_TIMINGS = Timings(0, 0, 0, 1)


class Call(Protocol):
    """The deadline and the metadata of a call."""

    def time_left_ns(self) -> int | None:
        """Returns the time until the client's deadline, at least 1; None without a deadline."""
        ...

    def metadata(self, name: str) -> str:
        """Returns the first value of this name, which is in lower case; "" if there is none."""
        ...

    @property
    def peer(self) -> Peer:
        """The sender of the call."""
        ...

    def request_id(self) -> str:
        """Returns the client's `x-request-id`, or a generated id."""
        ...


class GrpcDispatch(Dispatch):
    """Plans, decodes and encodes the gRPC messages of one model."""

    def __init__(self, model: ServedModel) -> None:
        super().__init__(model)
        self._grpc_writer = GrpcReplyWriter(model.name, model.version)

    def plan_head(self, layout: GrpcLayout) -> Plan:
        """Plans a request with this head. Raises BadMessage."""
        return self._plan(layout)  # type: ignore[arg-type]  # both layouts have the attributes that it reads

    def message(self, plan: Plan, completed: Completed, id: str) -> bytes:
        """Encodes a ModelInferResponse. May be called from any thread."""
        return self._grpc_writer.write(plan.form, self._answer(plan, completed), id)


class Planned(NamedTuple):
    """The facts that are equal for all requests with an equal head (all fields but the id and the raw contents)."""

    dispatch: GrpcDispatch
    plan: Plan
    layout: GrpcLayout


class Answering(Protocol):
    """A request in flight, in this process or in another."""

    async def result(self) -> bytes:
        """Waits for the answer and returns it: a ModelInferResponse, or the response of another method. Raises
        CallFailed."""
        ...

    def cancel(self) -> None: ...


class RemoteStream(Protocol):
    """A stream of requests to a model that another process serves."""

    async def write(self, message: bytes) -> None:
        """Sends a request. Raises CallFailed."""
        ...

    async def read(self) -> bytes:
        """Returns the next answer, a ModelStreamInferResponse. Raises CallFailed, also at the end of the stream."""
        ...

    def cancel(self) -> None: ...


class Relay(Protocol):
    """Forwards calls to the processes that serve other models."""

    def __call__(self, method: str, message: bytes, model: str, call: Call) -> Answering:
        """Forwards a unary call to a process that serves the model."""
        ...

    def stream(self, model: str, call: Call) -> RemoteStream:
        """Opens a stream of requests to a process that serves the model."""
        ...


class RefusedCall(NamedTuple):
    """A request that was refused before it was submitted."""

    fault: Fault

    async def result(self) -> bytes:
        raise CallFailed(self.fault)

    def cancel(self) -> None:
        """Does nothing: the request was not submitted."""


class Pending(NamedTuple):
    """A submitted request.

    id: of the message, "" if it has none. request_id: of the call. began_ns: instant at which its message had arrived.
    limit_ns: time limit of the client. held: its share of the memory for messages; None for a small message.
    """

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
        """Returns True if encoding the answer takes long: `answer_beside` is to be used in place of `answer`."""
        return type(outcome) is Completed and self.planned.dispatch.writes_long(self.planned.plan, outcome)

    async def answer_beside(self, outcome: Outcome) -> bytes:
        """Does the same as `answer`, but encodes the message in a worker thread, off the event loop."""
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
        """Returns the ModelInferResponse of a final outcome and notifies the witnesses. Raises CallFailed.

        written: returns the message if it was encoded in a thread already. settled_ns: when that encoding began.
        """
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
            internal = fault(error, model.name)
            status = internal.status
            raise CallFailed(internal) from None
        finally:
            del written  # it refers to its error, which refers to this frame, which holds the request
            self._give_back()
            if model.witnesses or status >= 500:
                named = self.id or self.request_id
                notify(model, "grpc", named, self.tenant, status, outcome, self.trace, self.began_ns, settled_ns)


class PendingGeneration(NamedTuple):
    """A request whose model generates any number of answers."""

    answers: Answers
    planned: Planned
    id: str
    call: Call
    tenant: str
    began_ns: int
    held: Held | None

    def message(self, values: object) -> bytes:
        """Encodes one answer as a ModelInferResponse. Raises CallFailed."""
        dispatch, plan, _ = self.planned
        try:
            if not isinstance(values, dict):
                raise BadOutput(f"the model returned a {type(values).__name__}, not its outputs by name")
            return dispatch.message(plan, Completed(values, 0, NO_TIMINGS), self.id)
        except Exception as error:
            raise CallFailed(fault(error, dispatch.model.name)) from None

    def end(self, fault: Fault | None) -> None:
        """Releases the request's memory share and notifies the witnesses. fault: None if it succeeded."""
        if self.held is not None:
            self.held.give_back()
        model = self.planned.dispatch.model
        if model.witnesses or fault is not None:
            status = 200 if fault is None else fault.status
            named, trace = self.id or self.call.request_id(), self.call.metadata(TRACEPARENT)
            notify(model, "grpc", named, self.tenant, status, self.answers.outcome, trace, self.began_ns, now_ns())


def fault(error: Exception, model: str) -> Fault:
    """Returns the fault to answer the client with. Logs unexpected exceptions, which become INTERNAL. model: the name
    of the model or another subject, for the log."""
    if isinstance(error, CallFailed):
        return error.fault
    answer = fault_of_error(error)
    if answer is INTERNAL:
        _log.error("a call of %s failed with an internal error", model, exc_info=error)
    return answer
