"""Sends the answers to a generate request: one JSON object (`generate`) or server-sent events (`generate_stream`)."""

from collections.abc import Callable
from dataclasses import replace

from serving.api.dispatch import Dispatch
from serving.api.faults import CallFailed, Fault, fault_of_outcome
from serving.api.http.asgi import JSON_CONTENT, Send, send_bytes, send_fault
from serving.api.http.generate import GenerateRequest, write_answer
from serving.api.served import ServedModel
from serving.core.backend import Answers, Submitted
from serving.core.outcome import Completed, Outcome
from serving.protocol.reply import Header

_EVENTS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
_MANY = "the model sends more than one answer to this request; use generate_stream"
_NONE = "the model sent no answer to this request"


class OneAnswer:
    """The `Answers` of a model that sends exactly one answer to a request."""

    def __init__(self, submitted: Submitted) -> None:
        self._submitted = submitted
        self.outcome: Outcome | None = None

    def __aiter__(self) -> "OneAnswer":
        return self

    async def __anext__(self) -> object:
        if self.outcome is not None:
            raise StopAsyncIteration
        self.outcome = await self._submitted
        if type(self.outcome) is not Completed:
            raise StopAsyncIteration
        return self.outcome.value

    def cancel(self) -> None:
        self._submitted.cancel()


def begin(dispatch: Dispatch, request: GenerateRequest, tenant: str) -> Answers:
    """Submits the request to a model of any kind and returns its answers."""
    if dispatch.model.generator is not None:
        return dispatch.generate(request, request.payload, tenant, request.timeout_ns)
    return OneAnswer(dispatch.hand_over(request, request.payload, tenant, request.timeout_ns, age_ns=0))


async def send_one(model: ServedModel, answers: Answers, id: str, send: Send, own: Header) -> None:
    """Sends the only answer as a JSON object. Cancels the request if it is cancelled itself.

    own: a header to add. Raises CallFailed, BadOutput or BadTensor.
    """
    first: object = None
    count = 0
    try:
        async for values in answers:
            first, count = values, count + 1
            if count > 1:
                raise CallFailed(Fault(400, _MANY))
    finally:
        answers.cancel()
    if type(answers.outcome) is not Completed:
        raise CallFailed(_ending(answers))
    if not count:
        raise CallFailed(Fault(400, _NONE))
    await send_bytes(send, 200, [JSON_CONTENT, own], write_answer(model, first, id))


async def send_all(
    model: ServedModel, answers: Answers, id: str, send: Send, own: Header, fault_of: Callable[[Exception], Fault]
) -> Fault | None:
    """Sends every answer as a server-sent event. Cancels the request if it is cancelled itself.

    An error before the first answer is sent as an HTTP status, a later one as an event with `error`. Returns the fault
    that was sent, or None.
    """
    has_begun = False
    fault: Fault | None = None
    try:
        async for values in answers:
            event = b"data: " + write_answer(model, values, id) + b"\n\n"
            if not has_begun:
                has_begun = True
                await send({"type": "http.response.start", "status": 200, "headers": [*_EVENTS, own]})
            await send({"type": "http.response.body", "body": event, "more_body": True})
        if type(answers.outcome) is not Completed:
            fault = _ending(answers)
    except Exception as error:
        fault = fault_of(error)
    finally:
        answers.cancel()
    if has_begun:
        last = b"" if fault is None else b"data: " + fault.body + b"\n\n"
        await send({"type": "http.response.body", "body": last})
    elif fault is not None:
        await send_fault(send, replace(fault, headers=(*fault.headers, own)))
    else:
        await send_bytes(send, 200, [*_EVENTS, own], b"")
    return fault


def _ending(answers: Answers) -> Fault:
    assert answers.outcome is not None
    return fault_of_outcome(answers.outcome)
