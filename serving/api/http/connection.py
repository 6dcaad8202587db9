"""An HTTP/1.1 connection on which plain infer requests take the fast path: no ASGI, no task, one write per answer.

It extends uvicorn's connection and inspects the bytes before uvicorn gets them. A request whose head is plain according
to `heads` is answered here. Every other request (other paths, other methods, chunked or compressed bodies, malformed
ones) is passed to uvicorn unchanged and takes the general path through the ASGI application. Both paths use the same
`Dispatch` and the same table of faults. The fast path halves the cost of a small request:
docs/decisions/0005-the-short-way.md.
"""

import asyncio
import socket
from collections.abc import Callable
from enum import Enum
from functools import partial
from io import BytesIO
from typing import Any

from serving.api.admission.age import HERE
from serving.api.admission.bound import HEADER as BOUND
from serving.api.admission.gate import Action
from serving.api.admission.pace import TOO_SLOW, patience_s
from serving.api.admission.quota import Quota
from serving.api.admission.room import COUNTED_BYTES, Held
from serving.api.beside import LONG_BYTES, beside
from serving.api.dispatch import Plan, ReadRequest
from serving.api.exchange import CACHE, FEATURES, HIT, MISS, REQUEST_ID, new_id, notify, now_ns
from serving.api.faults import CallFailed, Fault, fault_of_outcome
from serving.api.http.app import ModelApp, server_timing
from serving.api.http.asgi import JSON_CONTENT
from serving.api.http.heads import Head, Heads, without_upgrade
from serving.api.http.uvicorn_parts import UvicornConnection, status_lines
from serving.core.backend import Submitted
from serving.core.outcome import Cancelled, Completed, Outcome
from serving.protocol.errors import BadMessage
from serving.protocol.reply import HeaderBlock, encoded

MAX_HEAD_BYTES = 64 * 1024
TOO_LONG = Fault(431, f"the request's headers, or the lines between its chunks, exceed {MAX_HEAD_BYTES} bytes")
JOIN_BELOW_BYTES = 64 * 1024  # below this, copying the body is cheaper than writing two buffers


def fast_path(model: ModelApp) -> "Callable[..., InferConnection]":
    """Returns a factory of connections for this model, as uvicorn's setting `http` expects it."""
    paths = frozenset(path.encode() for path in model.infer_paths)
    heads = Heads(paths, model.tenant_header, model.model.max_body_bytes, from_pages=model.cors is not None)
    return partial(InferConnection, model, heads)


class Reader(Enum):
    """The state of a connection: what its next bytes belong to."""

    CLIENT = "a request may begin"
    BODY = "the body of a plain request is arriving"
    SERVER = "a plain request waits for its answer"
    SLOW_READER = "the answer is written faster than the client reads it"
    UVICORN = "uvicorn handles the current request; the next one may be plain"
    UVICORN_FOR_GOOD = "uvicorn handles all further requests, since only its parser can find where they begin"


# In Python 3.11, looking up a member in its class costs more than a call; every request needs several.
PREDICT = Action.PREDICT
CLIENT, BODY, SERVER, SLOW_READER, UVICORN, UVICORN_FOR_GOOD = Reader


class InferConnection(UvicornConnection):
    """A connection made by `fast_path`. uvicorn: the arguments that uvicorn's server passes to every connection.

    Its attributes are slots: with those of uvicorn they are more than Python 3.11 finds quickly in an ordinary object.
    """

    __slots__ = (
        "_age_ns",
        "_began_ns",
        "_body",
        "_bound",
        "_come_bytes",
        "_common",
        "_common_block",
        "_dispatch",
        "_fruitless_bytes",
        "_gate",
        "_head",
        "_heads",
        "_held",
        "_id",
        "_idle_timer",
        "_is_counted",
        "_is_last",
        "_missing_bytes",
        "_model",
        "_plan",
        "_quota",
        "_reader",
        "_refusal",
        "_request_id",
        "_settled_ns",
        "_since_s",
        "_slow_timer",
        "_submitted",
        "_tenant",
        "_unread",
        "_used_s",
        "_wire",
        "_witnesses",
    )

    def __init__(self, model: ModelApp, heads: Heads, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._model = model
        self._dispatch = model.dispatch
        self._gate = model.gate
        self._witnesses = model.model.witnesses
        self._wire = model.model.wire
        self._bound = model.model.bound
        self._quota = model.model.quota
        self._is_counted = False  # the current request, which is not submitted yet, has a place in the quota
        self._heads = heads
        self._reader = CLIENT
        self._unread = b""  # received and not processed yet
        self._body: BytesIO | None = None  # the parts received so far of an incomplete body
        self._held = Held(model.model.room)
        self._refusal: Fault | None = None  # to be answered when the rest of the body, which is discarded, has arrived
        self._since_s = 0.0  # when the current head or body began, if it is incomplete; otherwise 0
        self._come_bytes = 0  # number of bytes received of it
        self._fruitless_bytes = 0  # passed to uvicorn since it last reported a complete head or a part of a body
        self._slow_timer: asyncio.TimerHandle | None = None
        self._missing_bytes = 0  # still to come of the request: in BODY a plain one's, in UVICORN that of uvicorn
        self._head: Head
        self._plan: Plan
        self._id = ""
        self._request_id = b""
        self._tenant = ""
        self._age_ns = self._began_ns = self._settled_ns = 0
        self._submitted: Submitted | None = None
        self._is_last = False
        self._used_s = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None
        self._common: list[
            tuple[bytes, bytes]
        ] = []  # the headers of every answer; uvicorn makes a new list each second
        self._common_block = b""

    # -- asyncio calls ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        # Plain asyncio does not set TCP_NODELAY for listening sockets as Ray and uvicorn make them. uvicorn writes head
        # and body separately; without TCP_NODELAY the body would wait up to 40 ms for the client's acknowledgement.
        accepted = transport.get_extra_info("socket")
        if accepted is not None:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        if reader is CLIENT:
            self._begin(self._unread + data if self._unread else data)
        elif reader is BODY:
            self._gather(data)
        elif reader is UVICORN:
            self._pass_on(data)
        elif reader is UVICORN_FOR_GOOD:
            self._feed(data)
        else:  # the client sends its next request before this one is answered: apply backpressure
            self._unread += data
            self.flow.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._submitted is not None:
            self._submitted.cancel()
        if self._reader is BODY:
            self._held.give_back()
        self._discount()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if self._slow_timer is not None:
            self._slow_timer.cancel()
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reader is SLOW_READER:
            self._next()

    def shutdown(self) -> None:
        """Closes the connection after the current request. Called by uvicorn's server."""
        if self._reader in (BODY, SERVER):
            self._is_last = True
        else:
            super().shutdown()

    def on_headers_complete(self) -> None:
        """Refuses a request to upgrade the protocol. Called by uvicorn's parser.

        The parser would take the body of such a request for the next request. The error raised here makes uvicorn
        answer 400 and close the connection."""
        if self.parser.should_upgrade():
            raise BadMessage("only the first request of a connection may ask for another protocol")
        self._fruitless_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._fruitless_bytes = 0
        super().on_body(body)

    # -- receiving a request ----------------------------------------------------------------------------------

    def _begin(self, data: bytes) -> None:
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        end = data.find(b"\r\n\r\n")
        if end < 0 and len(data) < MAX_HEAD_BYTES:
            if not self._since_s:
                self._expect_rest()
            self._unread = data
            return
        self._unread = b""
        self._since_s = 0.0
        if end < 0 or end > MAX_HEAD_BYTES:
            self._refuse(TOO_LONG)
            return
        raw, self._age_ns = HERE.split(data[:end])
        head = self._heads.read(raw)
        if head.body_bytes is None:
            self._reader = UVICORN_FOR_GOOD
            self._feed(without_upgrade(data[:end]) + data[end:])
            return
        start = end + 4
        if not head.is_plain or (self._gate.asks and not self._is_admitted(head)):
            self._missing_bytes = start + head.body_bytes
            self._pass_on(data)
            return
        self._head = head
        if not self._gate.asks:
            self._tenant = head.tenant
        self._held.tenant = self._tenant
        self._missing_bytes = head.body_bytes
        self._body = None
        if self._quota is not None:
            self._count(self._quota)
        self._gather(data[start:])

    def _count(self, quota: Quota) -> None:
        """Counts the request before its body is read. Beyond the quota it is refused when its body, which is
        discarded, has arrived."""
        try:
            quota.take(self._tenant)
        except CallFailed as failed:
            self._refusal = failed.fault
        else:
            self._is_counted = True

    def _is_admitted(self, head: Head) -> bool:
        """Returns whether a caller with a credential may predict. Others take the general path, which refuses them."""
        try:
            self._tenant = self._gate.check(head.peer, PREDICT, self._model.model.name, quietly=True).tenant
        except CallFailed:
            return False
        return True

    def _gather(self, data: bytes) -> None:
        missing = self._missing_bytes - len(data)
        if missing > 0:
            if self._reader is not BODY:
                self._reader = BODY
                self._expect_rest()
                if self._tenant and not self._may_arrive():
                    return
            self._come_bytes += len(data)
            self._missing_bytes = missing
            if data and self._has_room(len(data)):
                self._body = self._body or BytesIO()  # one join of many parts would block the event loop for long
                self._body.write(data)
            return
        if missing < 0:
            data, self._unread = data[:missing], data[missing:]
            self.flow.pause_reading()
        if self._reader is BODY or len(data) > COUNTED_BYTES:
            if self._has_room(len(data)) and self._body is not None:
                self._body.write(data)
                data, self._body = self._body.getvalue(), None
            self._held.arrived()
            self._since_s = 0.0
        self._reader = SERVER
        self._submit(data)

    def _may_arrive(self) -> bool:
        """Returns whether the rest of a body may come; otherwise the request is refused at once."""
        try:
            self._held.arrive()
        except CallFailed as failed:
            self._refuse_rest(failed.fault)
            return False
        return True

    def _has_room(self, size: int) -> bool:
        """Takes room for `size` more bytes of the body and returns whether there is enough.

        If not, the request is refused when its whole body has arrived."""
        if self._refusal is None:
            try:
                self._held.take(size)
            except CallFailed as failed:
                self._refusal = failed.fault
                self._body = None
                self._held.give_back()
            else:
                return True
        return False

    def _pass_on(self, data: bytes) -> None:
        """Passes data to uvicorn. When uvicorn has answered its request, the next one may be plain again.

        If the client sends its next request before that, uvicorn keeps the connection for good."""
        if not self._missing_bytes and (self.cycle is None or self.cycle.response_complete):
            self._reader = CLIENT
            self._begin(data)
            return
        missing = self._missing_bytes - len(data)
        self._missing_bytes = max(missing, 0)
        if missing > 0 and not self._since_s:
            self._expect_rest()
        elif missing <= 0:
            self._since_s = 0.0
        self._come_bytes += len(data)
        self._reader = UVICORN if missing >= 0 else UVICORN_FOR_GOOD
        super().data_received(data)

    def _feed(self, data: bytes) -> None:
        """Passes data to uvicorn in pieces, and refuses heads and chunk lines that are too long.

        uvicorn itself has no bound for them."""
        for start in range(0, len(data), MAX_HEAD_BYTES):
            piece = data[start : start + MAX_HEAD_BYTES]
            self._fruitless_bytes += len(piece)
            super().data_received(piece)
            if self.transport.is_closing():
                return
            if self._fruitless_bytes > MAX_HEAD_BYTES:
                self._refuse(TOO_LONG)
                return

    def _refuse(self, fault: Fault) -> None:
        """Answers a request that is not plain with this fault and closes the connection.

        If uvicorn has begun to answer, the connection is only closed."""
        self._is_last = True
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()
            return
        self._reader = SERVER
        body = fault.body
        self._write(fault.status, encoded([JSON_CONTENT, (b"content-length", b"%d" % len(body))]), body)

    def _submit(self, body: bytes) -> None:
        self._id = ""
        self._request_id = self._head.request_id or new_id()
        self._began_ns = self._settled_ns = now_ns()
        if self._refusal is not None:
            refusal, self._refusal = self._refusal, None
            self._answer_fault(refusal)
            return
        json_bytes = self._head.json_bytes
        if len(body) > LONG_BYTES and self._dispatch.takes_long(body, json_bytes):
            beside(partial(self._dispatch.read, body, json_bytes)).add_done_callback(self._submit_read)
            return
        try:
            self._plan, self._id, json_bytes = self._dispatch.plan(body, json_bytes, self._tenant)
            self._submitted = self._dispatch.submit(self._plan, body, json_bytes, self._tenant, self._age_ns)
            self._is_counted = False  # the observer of the backend gives it back
        except Exception as error:
            self._answer_fault(self._model.fault(error))
        else:
            self._wire.decode.add(now_ns() - self._began_ns)
            self._submitted.then(self._answer)

    def _submit_read(self, reading: "asyncio.Future[ReadRequest]") -> None:
        """Submits a large request that a thread has read, unless its client has disconnected meanwhile."""
        took_ns = now_ns() - self._began_ns
        if self.transport.is_closing():
            self._answer(Cancelled())
            return
        # Not with `result`, which would raise the error here: frame, future and error would then refer to each other,
        # and the body would stay in memory until the garbage collector runs.
        failure = reading.exception()
        if failure is not None:
            self._answer_fault(self._model.fault(failure))
            return
        request = reading.result()
        try:
            self._id = request.id
            self._plan, self._submitted = self._dispatch.submit_read(request, self._tenant, self._age_ns + took_ns)
            self._is_counted = False
        except Exception as error:
            self._answer_fault(self._model.fault(error))
        else:
            self._wire.decode.add(took_ns)
            self._submitted.then(self._answer)

    # -- sending an answer ------------------------------------------------------------------------------------

    def _answer(self, outcome: Outcome) -> None:
        self._submitted = None
        self._settled_ns = now_ns()
        if self.transport.is_closing():
            self._notify(fault_of_outcome(Cancelled()).status, outcome)
            return
        if type(outcome) is not Completed:
            self._answer_fault(fault_of_outcome(outcome), outcome)
            return
        if self._dispatch.writes_long(self._plan, outcome):
            writing = beside(partial(self._dispatch.reply, self._plan, outcome, self._id))
            writing.add_done_callback(partial(self._answer_written, outcome))
            return
        try:
            headers, body = self._dispatch.reply(self._plan, outcome, self._id)
        except Exception as error:
            self._answer_fault(self._model.fault(error), outcome)
        else:
            self._answer_completed(outcome, headers, body)

    def _answer_written(self, outcome: Completed, writing: "asyncio.Future[tuple[HeaderBlock, bytes]]") -> None:
        """Sends a large answer that a thread has written."""
        if self.transport.is_closing():
            self._notify(fault_of_outcome(Cancelled()).status, outcome)
            return
        failure = writing.exception()  # as in `_submit_read`
        if failure is not None:
            self._answer_fault(self._model.fault(failure), outcome)
        else:
            self._answer_completed(outcome, *writing.result())

    def _answer_completed(self, outcome: Completed, headers: HeaderBlock, body: bytes) -> None:
        if self._model.timings:
            extra = b"server-timing: %b\r\nx-request-id: %b\r\n" % (server_timing(outcome), self._request_id)
        else:
            extra = b"x-request-id: %b\r\n" % self._request_id
        if outcome.cached is not None:
            extra += b"%b: %b\r\n" % (CACHE, HIT if outcome.cached else MISS)
        if outcome.features is not None:
            extra += b"%b: %b\r\n" % (FEATURES, outcome.features.encode("ascii"))
        self._write(200, headers.block + extra, body)
        self._wire.encode.add(now_ns() - self._settled_ns)
        self._notify(200, outcome)

    def _answer_fault(self, fault: Fault, outcome: Outcome | None = None) -> None:
        body = fault.body
        more = ((REQUEST_ID, self._request_id), (b"content-length", b"%d" % len(body)))
        self._write(fault.status, encoded([JSON_CONTENT, *fault.headers, *more]), body)
        self._notify(fault.status, outcome)

    def _notify(self, status: int, outcome: Outcome | None) -> None:
        """Gives back what a finished request holds, and notifies the witnesses."""
        if self._held.bytes:
            self._held.give_back()
        if self._is_counted:
            self._discount()
        if self._witnesses or status >= 500:
            head, id = self._head, self._id or self._request_id.decode("latin-1")
            notify(
                self._model.model, "http", id, self._tenant, status, outcome, head.traceparent,
                self._began_ns, self._settled_ns,
            )  # fmt: skip

    def _discount(self) -> None:
        """Gives back the place in the quota of a request that was counted and not submitted."""
        if self._is_counted and self._quota is not None:
            self._is_counted = False
            self._quota.give_back(self._tenant)

    def _write(self, status: int, headers: bytes, body: bytes) -> None:
        """Writes an answer. headers: those of this answer, encoded, without the empty line after them."""
        if self._common is not self.server_state.default_headers:
            self._common = self.server_state.default_headers
            self._common_block = encoded(self._common)
        if bound := self._bound.due():
            headers += b"%b: %b\r\n" % (BOUND, bound)
        closing = b"connection: close\r\n\r\n" if self._is_last else b"\r\n"
        parts = [status_lines[status], self._common_block, headers, closing, body]
        if len(body) < JOIN_BELOW_BYTES:
            self.transport.write(b"".join(parts))
        else:
            self.transport.writelines(parts)
        self.server_state.total_requests += 1
        if self._is_last:
            self.transport.close()
        elif self.flow.write_paused:
            self._reader = SLOW_READER
        else:
            self._next()

    def _next(self) -> None:
        self._reader = CLIENT
        self._used_s = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._close_if_idle)
        if self._unread:
            # Called from the loop: with a client that pipelines many requests, a direct call would recurse for each.
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self.data_received(b"")

    def _expect_rest(self) -> None:
        """Starts the timer for a head or a body that is incomplete. Complete requests need no timer."""
        self._since_s = self.loop.time()
        self._come_bytes = 0
        if self._slow_timer is None:
            self._slow_timer = self.loop.call_later(patience_s(0), self._refuse_if_slow)

    def _refuse_if_slow(self) -> None:
        """Refuses the request if it arrives too slowly; otherwise sets the timer to the next possible instant.

        Does nothing if no request is incomplete."""
        self._slow_timer = None
        if self.transport.is_closing() or not self._since_s:
            return
        left_s = self._since_s + patience_s(self._come_bytes) - self.loop.time()
        if left_s > 0:
            self._slow_timer = self.loop.call_later(max(left_s, 1.0), self._refuse_if_slow)
            return
        if self._reader is BODY:
            self._refuse_rest(TOO_SLOW)
        else:
            self._refuse(TOO_SLOW)

    def _refuse_rest(self, fault: Fault) -> None:
        """Answers a plain request whose body is incomplete, and closes the connection."""
        self._is_last = True
        self._reader = SERVER
        self._since_s = 0.0
        self._held.give_back()
        self._id, self._request_id = "", self._head.request_id or new_id()
        self._answer_fault(fault)

    def _close_if_idle(self) -> None:
        """Closes the connection if it has been idle for long enough; otherwise sets the timer to the next instant.

        One timer per connection is cheaper than a new one for every request."""
        left_s = self._used_s + self.timeout_keep_alive - self.loop.time()
        self._idle_timer = None
        if self.transport.is_closing():
            return
        if self._reader is CLIENT and left_s <= 0:
            self.transport.close()
        else:
            self._idle_timer = self.loop.call_later(max(left_s, 1.0), self._close_if_idle)
