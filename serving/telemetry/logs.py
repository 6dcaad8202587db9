"""The log of requests: a sentence for people, and the same as fields for programs. No payload, no header, no secret.

Under load it is a sample: so many lines a second of requests that went well, as many of those that did not, and each
says for how many it stands. Lines are written in a thread.
"""

import logging
from typing import Any

from serving.core.outcome import Completed
from serving.core.witness import Exchange
from serving.telemetry.deferred import Allowance, Deferred
from serving.telemetry.recorder import named

MOST_TEXT = 128  # characters of what a client chose: an id, a tenant


class RequestLog:
    """A `core.witness.Witness`. per_s: lines per second, of good answers and of bad ones each. A handler of `logger`
    that writes JSON finds the fields as attributes of the record."""

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
            told = fields(exchange) | {"model": self._model, "version": self._version, "stands_for": stands_for}
            level = logging.INFO if exchange.status < 500 else logging.WARNING
            self._logger.log(level, "%s", sentence(told), extra=told)


def fields(exchange: Exchange) -> dict[str, Any]:
    """What is logged of a request, beside its model; times in milliseconds."""
    outcome = exchange.outcome
    kind, reason = ("unreadable", "") if outcome is None else named(outcome)
    told: dict[str, Any] = {
        "request_id": exchange.id[:MOST_TEXT],
        "tenant": exchange.tenant[:MOST_TEXT],
        "wire": exchange.wire,
        "status": exchange.status,
        "outcome": kind,
        "total_ms": _ms(exchange.ended_ns - exchange.began_ns),
    }
    if reason:
        told["reason"] = reason
    if isinstance(outcome, Completed):
        timings = outcome.timings
        told |= {
            "queue_ms": _ms(outcome.queue_ns),
            "prepare_ms": _ms(timings.prepare_ns),
            "compute_ms": _ms(timings.compute_ns),
            "finish_ms": _ms(timings.finish_ns),
            "batch_rows": timings.batch_rows,
        }
    if exchange.traceparent:
        told["trace_id"] = exchange.traceparent[3:35]
    return told


def sentence(told: dict[str, Any]) -> str:
    """For people: what became of it, how long it took and where."""
    text = f"{told['model']}: {told['outcome']} {told['status']} in {told['total_ms']:.1f} ms"
    if "reason" in told:
        text += f", {told['reason']}"
    if "queue_ms" in told:
        text += f" (queue {told['queue_ms']:.1f}, compute {told['compute_ms']:.1f}, {told['batch_rows']} rows)"
    tenant = f", tenant {told['tenant']}" if told["tenant"] else ""
    others = f"; one of {told['stands_for']}" if told["stands_for"] > 1 else ""
    return f"{text}; request {told['request_id']}{tenant}{others}"


def _ms(ns: int) -> float:
    return round(ns / 1e6, 3)
