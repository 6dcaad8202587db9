"""The HTTP interface of one model: a raw ASGI application for every path below /v2/models/<name>.

`Dispatch` reads, submits and answers requests; `faults` decides the statuses. Routes depend only on path and verb, not
on the content type, since tritonclient sends none and curl sends a wrong one.
An answer is two ASGI events. uvloop sends them in one packet; plain asyncio sends two packets, without a delay between
them since `connection` sets TCP_NODELAY.
"""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

from serving.api.admission.age import HEADER as AGE
from serving.api.admission.age import HERE
from serving.api.admission.gate import Action, Gate, Peer, http_peer
from serving.api.admission.local_gate import LocalGate
from serving.api.admission.room import Held
from serving.api.beside import LONG_BYTES, beside
from serving.api.dispatch import Dispatch
from serving.api.exchange import REQUEST_ID, TRACEPARENT, facts, new_id, notify, now_ns
from serving.api.faults import (
    INTERNAL,
    CallFailed,
    Fault,
    fault_of_error,
    fault_of_outcome,
    left_out,
    not_ready,
    unknown_model,
    unknown_path,
    wrong_verb,
)
from serving.api.feedback import MAX_BODY_BYTES as MAX_FEEDBACK_BYTES
from serving.api.http.asgi import (
    BodyTooLarge,
    HeaderMap,
    Receive,
    Scope,
    Send,
    answer_other_scope,
    read_body,
    send_fault,
    send_json,
    text_header,
)
from serving.api.http.cors import Cors
from serving.api.http.disconnect import DisconnectWatch
from serving.api.http.events import begin, send_all, send_one
from serving.api.http.front import Change, FrontApp, answer_settings
from serving.api.http.generate import read_request
from serving.api.metadata import model_config, model_metadata, served_statistics, statistics
from serving.api.served import ServedModel
from serving.core.backend import Answers
from serving.core.outcome import Cancelled, Completed, Outcome
from serving.names import FRONT_TAILS, MODELS, model_path
from serving.protocol.binary_codec import parse_header_length
from serving.protocol.compression import coding_of, deflate, inflate, wanted_coding
from serving.protocol.reply import HEADER_LENGTH, Header

__all__ = ["FrontApp", "ModelApp"]

_log = logging.getLogger(__name__)
# Below this size, handing the work to a thread costs more than compressing on the event loop.
_THREAD_BYTES = 16 * 1024
_INFER = "/infer"
_TRACE = "/trace/setting"
_CLEAR = "/cache/clear"
_FEEDBACK = "/feedback"
_GENERATES = {"/generate": False, "/generate_stream": True}  # whether the answers are sent as they are made
FRONTS = "routes and releases need HAProxy, which this server runs without: the first version answers"
_MODEL = re.compile(rf"{MODELS}([^/]+)(?:/versions/([^/]+))?")


class ModelApp:
    """The ASGI application of one model.

    tenant_header: the header whose value names the tenant; "" for a single tenant. Any client can set it, so a proxy in
        front of the server must check it.
    timings: whether to send `Server-Timing`.
    gate: decides which callers may do what.
    cors: None if web pages of other origins may not send requests.
    """

    def __init__(
        self,
        model: ServedModel,
        *,
        tenant_header: str = "",
        timings: bool = True,
        gate: Gate | None = None,
        cors: Cors | None = None,
    ) -> None:
        self.model = model
        self.dispatch = Dispatch(model)
        self._watch = DisconnectWatch()
        self.tenant_header = tenant_header.lower().encode()
        self.timings = timings
        self.gate: Gate = gate or LocalGate()
        self.cors = cors
        self._tells: dict[str, Callable[[Send], Awaitable[None]]] = {
            "": self._answer_metadata,
            "/ready": self._answer_ready,
            "/config": self._answer_config,
            "/stats": self._answer_statistics,
        }
        prefixes = (model_path(model.name), f"{model_path(model.name)}/versions/{model.version}")
        tails = (*self._tells, _INFER, _TRACE, _CLEAR, _FEEDBACK, *_GENERATES)
        self.infer_paths = tuple(prefix + _INFER for prefix in prefixes)
        self._operations = {prefix + tail: tail for prefix in prefixes for tail in tails}

    def __repr__(self) -> str:
        return f"<ModelApp {self.model.name} version {self.model.version}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.cors is None:
            await self._serve(scope, receive, send)
        else:
            await self.cors.serve(self._serve, scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await answer_other_scope(scope, receive, send)
            return
        operation = self._operations.get(scope["path"])
        if operation is None:
            operation = self._find(scope["path"], scope.get("root_path", ""))
        method = scope["method"]
        headers: HeaderMap = dict(scope["headers"])
        tenant = text_header(headers, self.tenant_header)
        if self.gate.asks:
            try:
                tenant = self._admitted(http_peer(scope), operation, self._asked(scope, operation))
            except CallFailed as failed:
                await send_fault(send, failed.fault)
                return
        if operation == _INFER and method == "POST":
            await self._infer(headers, tenant, receive, send)
        elif operation is None:
            await send_fault(send, self._unknown(scope["path"], scope.get("root_path", "")))
        elif operation == _TRACE:
            await self._answer_settings(self._trace, scope, receive, send)
        elif operation in _GENERATES and method == "POST":
            await self._generate(headers, tenant, receive, send, streams=_GENERATES[operation])
        elif operation == _CLEAR and method == "POST":
            await self._answer_settings(self._clear_cache, scope, receive, send)
        elif operation == _FEEDBACK and method == "POST":
            await self._take_feedback(headers, tenant, scope, receive, send)
        elif operation in (_INFER, _CLEAR, _FEEDBACK) or operation in _GENERATES:
            await send_fault(send, wrong_verb(method, "POST"))
        elif method not in ("GET", "HEAD"):
            await send_fault(send, wrong_verb(method, "GET"))
        else:
            await self._tells[operation](send)

    def _admitted(self, peer: Peer, operation: str | None, model: str | None) -> str:
        """Returns the tenant of a caller with a credential that may ask this of a model. Raises CallFailed.

        model: the one that the caller names, "" for none; None for this one."""
        predicts = operation == _INFER or operation in _GENERATES
        name = self.model.name if model is None else model
        return self.gate.check(peer, Action.PREDICT if predicts else Action.READ, name).tenant

    def _asked(self, scope: Scope, operation: str | None) -> str | None:
        """Returns the model that a path names, which can be another one if the path went astray."""
        if operation is not None:
            return None
        named = _named(scope["path"], scope.get("root_path", ""))
        return named[1] if named else ""

    async def _infer(self, headers: HeaderMap, tenant: str, receive: Receive, send: Send) -> None:
        began_ns = settled_ns = now_ns()
        request_id = headers.get(REQUEST_ID) or new_id()
        age_ns = HERE.age_ns(headers.get(AGE, b""))
        wire = self.model.wire
        id = ""
        outcome: Outcome | None = None
        fault: Fault | None = None
        held = Held(self.model.room, tenant)
        is_counted = False
        try:
            is_counted = self._count(tenant)
            body = await read_body(receive, headers, self.model.max_body_bytes, held)
            if body is None:
                return
            began_ns = settled_ns = now_ns()
            if encoding := headers.get(b"content-encoding"):
                body = await self._inflated(body, encoding.decode("latin-1"), held)
            length = headers.get(HEADER_LENGTH)
            head_bytes = None if length is None else parse_header_length(length)
            if self.dispatch.takes_long(body, head_bytes):
                read = await beside(partial(self.dispatch.read, body, head_bytes))
                id = read.id
                plan, submitted = self.dispatch.submit_read(read, tenant, age_ns + now_ns() - began_ns)
            else:
                plan, id, head_bytes = self.dispatch.plan(body, head_bytes, tenant)
                submitted = self.dispatch.submit(plan, body, head_bytes, tenant, age_ns)
            is_counted = False  # the observer of the backend gives it back
            wire.decode.add(now_ns() - began_ns)
            outcome = await self._watch.outcome(submitted, receive)
            settled_ns = now_ns()
            if type(outcome) is Completed:
                if self.dispatch.writes_long(plan, outcome):
                    block, content = await beside(partial(self.dispatch.reply, plan, outcome, id))
                else:
                    block, content = self.dispatch.reply(plan, outcome, id)
                answer = block.pairs
                if accepted := headers.get(b"accept-encoding"):
                    answer, content = await self._deflated(answer, content, accepted.decode("latin-1"))
            else:
                outcome = outcome or Cancelled()  # None: the client has disconnected
                fault = fault_of_outcome(outcome)
        except Exception as error:
            fault = self.fault(error)
        finally:
            held.give_back()
            if is_counted:
                self._discount(tenant)
        if fault is not None:
            await send_fault(send, replace(fault, headers=(*fault.headers, (REQUEST_ID, request_id))))
        else:
            # A new list, since `answer` is shared by all answers of this form.
            answer = [*answer, (REQUEST_ID, request_id)]
            if self.timings:
                answer.append((b"server-timing", server_timing(cast(Completed, outcome))))
            answer += facts(outcome)
            await send({"type": "http.response.start", "status": 200, "headers": answer})
            await send({"type": "http.response.body", "body": content})
            wire.encode.add(now_ns() - settled_ns)
        self._witness(headers, id or request_id.decode("latin-1"), tenant, fault, outcome, began_ns, settled_ns)

    async def _generate(self, headers: HeaderMap, tenant: str, receive: Receive, send: Send, *, streams: bool) -> None:
        began_ns = now_ns()
        own: Header = (REQUEST_ID, headers.get(REQUEST_ID) or new_id())
        id = ""
        answers: Answers | None = None
        fault: Fault | None = None
        held = Held(self.model.room, tenant)
        is_counted = False
        try:
            is_counted = self._count(tenant)
            body = await read_body(receive, headers, self.model.max_body_bytes, held)
            if body is None:
                return
            began_ns = now_ns()
            if encoding := headers.get(b"content-encoding"):
                body = await self._inflated(body, encoding.decode("latin-1"), held)
            is_long = len(body) > LONG_BYTES
            work = partial(read_request, self.model, body)
            request = await beside(work) if is_long else work()
            id = request.id
            answers = begin(self.dispatch, request, tenant)
            is_counted = False
            self.model.wire.decode.add(now_ns() - began_ns)
            if streams:
                fault = await self._watch.outcome(send_all(self.model, answers, id, send, own, self.fault), receive)
            else:
                await self._watch.outcome(send_one(self.model, answers, id, send, own), receive)
        except Exception as error:
            fault = self.fault(error)
            await send_fault(send, replace(fault, headers=(*fault.headers, own)))
        finally:
            held.give_back()
            if is_counted:
                self._discount(tenant)
        if self.model.witnesses or answers is None or type(answers.outcome) is not Completed:
            outcome = None if answers is None else answers.outcome or Cancelled()
            if fault is None and type(outcome) is not Completed:
                fault = fault_of_outcome(cast(Outcome, outcome))
            self._witness(headers, id or own[1].decode("latin-1"), tenant, fault, outcome, began_ns, now_ns())

    def _count(self, tenant: str) -> bool:
        """Counts a request whose body is not read yet, and returns whether anything counts. Raises CallFailed (429)."""
        if self.model.quota is None:
            return False
        self.model.quota.take(tenant)
        return True

    def _discount(self, tenant: str) -> None:
        """Gives back the place of a counted request that was not submitted."""
        assert self.model.quota is not None
        self.model.quota.give_back(tenant)

    def _witness(
        self,
        headers: HeaderMap,
        id: str,
        tenant: str,
        fault: Fault | None,
        outcome: Outcome | None,
        began_ns: int,
        settled_ns: int,
    ) -> None:
        """Notifies the model's witnesses of a request that was answered. fault: None if it succeeded."""
        if self.model.witnesses or fault is not None:
            status, trace = 200 if fault is None else fault.status, text_header(headers, TRACEPARENT)
            notify(self.model, "http", id, tenant, status, outcome, trace, began_ns, settled_ns)

    async def _answer_settings(self, change: Change, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await answer_settings(change, scope, receive, send)
        except CallFailed as failed:
            await send_fault(send, failed.fault)
        except Exception as error:
            await send_fault(send, self.fault(error))

    async def _trace(self, changes: Mapping[str, Any], peer: Peer) -> dict[str, Any]:
        if self.model.trace is None:
            raise CallFailed(left_out("the trace extension is not supported by this server"))
        if changes:
            self.gate.check(peer, Action.TRACE, self.model.name)
        return await self.model.trace(changes)

    async def _clear_cache(self, changes: Mapping[str, Any], peer: Peer) -> dict[str, Any]:
        self.gate.check(peer, Action.CACHE, self.model.name)
        if self.model.clear_cache is None:
            raise CallFailed(Fault(400, f"{self.model.name} has no cache; its settings need a section `cache`"))
        return await self.model.clear_cache(changes)

    async def _take_feedback(self, headers: HeaderMap, tenant: str, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self.gate.check(http_peer(scope), Action.FEEDBACK, self.model.name)
            body = await read_body(receive, headers, MAX_FEEDBACK_BYTES)
            if body is not None:
                await send_json(send, {"received": self.model.feedback.put(tenant, body)})
        except Exception as error:
            await send_fault(send, self.fault(error))

    async def _inflated(self, body: bytes, encoding: str, held: Held) -> bytes:
        coding = coding_of(encoding)
        if not coding:
            return body
        inflated = await self._inflate(body, coding)
        held.give_back()
        held.take(len(inflated))
        return inflated

    async def _inflate(self, body: bytes, coding: str) -> bytes:
        if len(body) < _THREAD_BYTES // 16:
            return inflate(body, coding, self.model.max_body_bytes)
        # A small body may inflate to a huge one, and inflating takes about 1 ms per 300 KB.
        return await beside(partial(inflate, body, coding, self.model.max_body_bytes))

    async def _deflated(self, headers: list[Header], body: bytes, accepted: str) -> tuple[list[Header], bytes]:
        coding = wanted_coding(accepted)
        if not coding:
            return headers, body
        small = len(body) < _THREAD_BYTES
        packed = deflate(body, coding) if small else await beside(partial(deflate, body, coding))
        kept = [(name, value) for name, value in headers if name != b"content-length"]
        return [
            *kept,
            (b"content-encoding", coding.encode()),
            (b"content-length", b"%d" % len(packed)),
        ], packed

    def fault(self, error: BaseException) -> Fault:
        """Returns the fault to answer for a raised error. An unknown error is a bug of the server and is logged."""
        if isinstance(error, CallFailed):
            return error.fault
        fault = fault_of_error(error)
        if fault is INTERNAL:
            _log.error("request to %s failed because of a bug in the server", self.model.name, exc_info=error)
        if isinstance(error, BodyTooLarge) and error.is_endless:
            return Fault(fault.status, fault.text, ((b"connection", b"close"),))
        return fault

    def _find(self, path: str, root_path: str) -> str | None:
        """Returns the operation of a path that is not in the table as it is, or None.

        The path may end with a slash, or the application may be mounted under a prefix, which some servers leave in
        `path` and others remove from it."""
        for candidate in (path, root_path + path):
            start = candidate.find(MODELS)
            operation = self._operations.get(candidate[max(start, 0) :].rstrip("/"))
            if operation is not None:
                return operation
        return None

    def _unknown(self, path: str, root_path: str) -> Fault:
        match = _named(path, root_path)
        if match and match[1] != self.model.name:
            return unknown_model(match[1])
        if match and match[2] is None and path.rpartition("/")[2] in FRONT_TAILS:
            return Fault(501, FRONTS)  # behind HAProxy such a request does not come here
        if match and match[2] not in (None, self.model.version):
            return unknown_model(match[1], match[2])
        return unknown_path(path)

    async def _answer_metadata(self, send: Send) -> None:
        await send_json(send, model_metadata(self.model))

    async def _answer_ready(self, send: Send) -> None:
        if self.model.backend.is_ready():
            await send_json(send, {"name": self.model.name, "ready": True})
        else:
            await send_fault(send, not_ready(self.model.name))

    async def _answer_config(self, send: Send) -> None:
        await send_json(send, model_config(self.model))

    async def _answer_statistics(self, send: Send) -> None:
        await send_json(send, statistics([await served_statistics(self.model)]))


def _named(path: str, root_path: str) -> re.Match[str] | None:
    """Returns the name and the version of a model in the path, None without a model."""
    return _MODEL.search(path) or _MODEL.search(root_path + path)


def server_timing(completed: Completed) -> bytes:
    """Returns the value of the header Server-Timing: the time in the queue and computing, in ms."""
    return b"queue;dur=%.3f, compute;dur=%.3f" % (completed.queue_ns / 1e6, completed.timings.compute_ns / 1e6)
