"""The log of requests: a sentence for people and the same facts as fields for programs. No payload, header or secret.

Under load it is a sample: it has at most a set number of lines per second for successful requests, and as many for
others. Each line gives the number of requests that it stands for. Lines are written in a thread.
"""

import logging
from typing import Any

from serving.core.outcome import Completed
from serving.core.witness import Exchange
from serving.telemetry.deferred import Allowance, Deferred
from serving.telemetry.recorder import named

MOST_TEXT = 128  # characters of a text that the client chooses: request id and tenant


class RequestLog:
    """A `core.witness.Witness` that logs requests.

    per_s: the most lines per second, for statuses below 400 and for others separately. A JSON handler of `logger` finds
    the fields as attributes of the log record.
    """

    def __init__(self, logger: logging.Logger, *, model: str, version: str, per_s: int) -> None:
        self._logger = logger
        self._model = model
        self._version = version
        self._good = Allowance(per_s)
        self._bad = Allowance(per_s)
        self._lines: Deferred[tuple[Exchange, int]] = Deferred(self._write)

    def answered(self, exchange: Exchange) -> None:
        allowance = self._good if exchange.status < 400 else self._bad
        stands_for = allowance.take(exchange.ended_ns)
        if stands_for:
            self._lines.put((exchange, stands_for))

    def _write(self, lines: list[tuple[Exchange, int]]) -> None:
        for exchange, stands_for in lines:
            facts = fields(exchange) | {"model": self._model, "version": self._version, "stands_for": stands_for}
            level = logging.INFO if exchange.status < 500 else logging.WARNING
            self._logger.log(level, "%s", sentence(facts), extra=facts)


def fields(exchange: Exchange) -> dict[str, Any]:
    """Returns the fields that are logged for a request, without its model; times in milliseconds."""
    outcome = exchange.outcome
    kind, reason = ("unreadable", "") if outcome is None else named(outcome)
    facts: dict[str, Any] = {
        "request_id": exchange.id[:MOST_TEXT],
        "tenant": exchange.tenant[:MOST_TEXT],
        "wire": exchange.wire,
        "status": exchange.status,
        "outcome": kind,
        "total_ms": _ms(exchange.ended_ns - exchange.began_ns),
    }
    if reason:
        facts["reason"] = reason
    if isinstance(outcome, Completed):
        timings = outcome.timings
        facts |= {
            "queue_ms": _ms(outcome.queue_ns),
            "prepare_ms": _ms(timings.prepare_ns),
            "compute_ms": _ms(timings.compute_ns),
            "finish_ms": _ms(timings.finish_ns),
            "batch_rows": timings.batch_rows,
        }
        if outcome.cached is not None:
            facts["cached"] = outcome.cached
    if exchange.traceparent:
        facts["trace_id"] = exchange.traceparent[3:35]
    return facts


def sentence(told: dict[str, Any]) -> str:
    """Returns the sentence for people: the outcome of the request, its duration and its phases. told: the fields."""
    text = f"{told['model']}: {told['outcome']} {told['status']} in {told['total_ms']:.1f} ms"
    if "reason" in told:
        text += f", {told['reason']}"
    if told.get("cached"):
        text += " (from the cache)"
    elif "queue_ms" in told:
        text += f" (queue {told['queue_ms']:.1f}, compute {told['compute_ms']:.1f}, {told['batch_rows']} rows)"
    tenant = f", tenant {told['tenant']}" if told["tenant"] else ""
    others = f"; one of {told['stands_for']}" if told["stands_for"] > 1 else ""
    return f"{text}; request {told['request_id']}{tenant}{others}"


def _ms(ns: int) -> float:
    return round(ns / 1e6, 3)
