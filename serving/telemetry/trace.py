"""Spans of requests, by OpenTelemetry to a collector. The only place that knows OpenTelemetry; off without an endpoint.

A request's stages are known when it has ended, so its spans are made then, in a thread, and only for the requests that
are sampled: those whose client asks for it (W3C `traceparent` with the sampled flag), and a share of those that come
without a trace of their own.
"""

import logging
import random
import re
import time
from collections.abc import Iterator
from typing import Any

from serving.core.outcome import Completed
from serving.core.witness import Exchange
from serving.telemetry.deferred import Allowance, Deferred
from serving.telemetry.logs import fields

MOST_PER_S = 50  # of one replica: a client that wants everything traced does not get everything
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_log = logging.getLogger(__name__)
Stage = tuple[str, int, int]  # name, beginning and end


class RequestTraces:
    """A `core.witness.Witness`. endpoint: of an OTLP collector over HTTP, `http://host:4318/v1/traces`, say. share: of
    the requests without a trace of their own. Raises ModuleNotFoundError where the exporter is not installed."""

    def __init__(self, endpoint: str, *, model: str, version: str, share: float) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._model = model
        self._version = version
        self.share = share  # may change at any time
        self._allowance = Allowance(MOST_PER_S)
        self._provider = TracerProvider(resource=Resource.create({"service.name": "headway"}), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        self._tracer = self._provider.get_tracer("headway")
        self._epoch_ns = time.time_ns() - time.monotonic_ns()
        self._kept: Deferred[Exchange] = Deferred(self._export)

    def answered(self, exchange: Exchange) -> None:
        trace = exchange.traceparent
        wanted = is_sampled(trace) if trace else random.random() < self.share
        if wanted and self._allowance.take(exchange.ended_ns):
            self._kept.put(exchange)

    def close(self) -> None:
        """Sends what is there. Blocks for as long as that takes."""
        self._provider.shutdown()

    def _export(self, exchanges: list[Exchange]) -> None:
        for exchange in exchanges:
            try:
                self._tell(exchange)
            except Exception:
                _log.exception("a trace could not be made")

    def _tell(self, exchange: Exchange) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        attributes: dict[str, Any] = {f"headway.{name}": value for name, value in fields(exchange).items()}
        attributes |= {"headway.model": self._model, "headway.version": self._version}
        span = self._tracer.start_span(
            f"infer {self._model}",
            context=_parent(exchange.traceparent),
            kind=SpanKind.SERVER,
            attributes=attributes,
            start_time=exchange.began_ns + self._epoch_ns,
        )
        if exchange.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        within = set_span_in_context(span)
        for name, began_ns, ended_ns in stages(exchange):
            stage = self._tracer.start_span(name, context=within, start_time=began_ns + self._epoch_ns)
            stage.end(ended_ns + self._epoch_ns)
        span.end(exchange.ended_ns + self._epoch_ns)


def stages(exchange: Exchange) -> Iterator[Stage]:
    """What a completed request went through, one after the other. What the engine took is counted back from the instant
    of the outcome; what is left at the beginning was decoding."""
    outcome = exchange.outcome
    if not isinstance(outcome, Completed):
        return
    timings = outcome.timings
    taken = (
        ("queue", outcome.queue_ns),
        ("prepare", timings.prepare_ns),
        ("compute", timings.compute_ns),
        ("finish", timings.finish_ns),
    )
    at_ns = max(exchange.began_ns, exchange.settled_ns - sum(ns for _, ns in taken))
    yield "decode", exchange.began_ns, at_ns
    for name, ns in taken:
        yield name, at_ns, at_ns + ns
        at_ns += ns
    yield "encode", exchange.settled_ns, exchange.ended_ns


def is_sampled(traceparent: str) -> bool:
    found = _TRACEPARENT.fullmatch(traceparent)
    return found is not None and bool(int(found[3], 16) & 1)


def _parent(traceparent: str) -> Any:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": traceparent})
