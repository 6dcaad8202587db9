"""Ids for requests that come without one, and the notification of witnesses about answered requests, for all wires."""

import os
from itertools import count

from serving.api.served import ServedModel
from serving.core.clock import SystemClock
from serving.core.outcome import Completed, Outcome
from serving.core.witness import Exchange

REQUEST_ID = b"x-request-id"
TRACEPARENT = b"traceparent"
CACHE = b"x-headway-cache"  # of an answer: whether it is that of an equal request, if the model has a cache
FEATURES = b"x-headway-features"  # of an answer: which features were not known, if the request asked for it
HIT, MISS = b"hit", b"miss"
now_ns = SystemClock.now_ns
_process = os.urandom(5).hex().encode()
_number = count(1)


def new_id() -> bytes:
    """Returns an id that no other request of any process has."""
    return b"%b-%x" % (_process, next(_number))


def facts(outcome: Outcome | None) -> list[tuple[bytes, bytes]]:
    """Returns the headers, or trailers, that say where an answer is from."""
    if not isinstance(outcome, Completed):
        return []
    told = [] if outcome.cached is None else [(CACHE, HIT if outcome.cached else MISS)]
    return told if outcome.features is None else [*told, (FEATURES, outcome.features.encode("ascii"))]


def notify(
    model: ServedModel,
    wire: str,
    id: str,
    tenant: str,
    status: int,
    outcome: Outcome | None,
    traceparent: str,
    began_ns: int,
    settled_ns: int,
) -> None:
    """Notifies the model's witnesses of a request. Must be called when its answer has been written.

    The arguments are the fields of `core.witness.Exchange`."""
    exchange = Exchange(wire, id, tenant, status, outcome, traceparent, began_ns, settled_ns, now_ns())
    for witness in model.witnesses:
        witness.answered(exchange)
    if status >= 500 and model.of_failures is not None:
        model.of_failures.answered(exchange)
