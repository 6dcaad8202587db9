"""Exports spans of requests to a collector with OpenTelemetry. Only this module uses it; off without an endpoint.

The spans of a request are made after it has ended, when its phases are known, in a thread. Only sampled requests get
spans: those whose client asks for it (W3C `traceparent` with the sampled flag), and a share of those without a trace.
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

MOST_PER_S = 50  # traces of one replica, even if clients ask for more
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_log = logging.getLogger(__name__)
Stage = tuple[str, int, int]  # a phase: name, beginning and end in ns


class RequestTraces:
    """A `core.witness.Witness` that exports spans. Raises ModuleNotFoundError if the exporter is not installed.

    endpoint: an OTLP collector over HTTP, for example `http://host:4318/v1/traces`.
    share: the share of requests without a trace of their own that are sampled, 0 to 1.
    """

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
        """Exports the remaining spans. Blocks until they are sent."""
        self._provider.shutdown()

    def _export(self, exchanges: list[Exchange]) -> None:
        for exchange in exchanges:
            try:
                self._make_spans(exchange)
            except Exception:
                _log.exception("the spans of a request could not be exported")

    def _make_spans(self, exchange: Exchange) -> None:
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
        for name, began_ns, ended_ns in phases(exchange):
            stage = self._tracer.start_span(name, context=within, start_time=began_ns + self._epoch_ns)
            stage.end(ended_ns + self._epoch_ns)
        span.end(exchange.ended_ns + self._epoch_ns)


def phases(exchange: Exchange) -> Iterator[Stage]:
    """Yields the phases of a completed request in order; none for other outcomes.

    The engine's phases end at the instant of the outcome and are counted back from it. The time before is decoding.
    """
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
    """Returns whether a `traceparent` header is valid and has the sampled flag."""
    match = _TRACEPARENT.fullmatch(traceparent)
    return match is not None and bool(int(match[3], 16) & 1)


def _parent(traceparent: str) -> Any:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": traceparent})
