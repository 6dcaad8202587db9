"""Tests the spans that a collector receives, decoded from the bytes of OTLP."""

import asyncio

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from serving.core.outcome import Reason, Rejected
from serving.core.witness import Exchange
from serving.telemetry.trace import RequestTraces, is_sampled, phases
from tests.core.stories import ms
from tests.deploy.conftest import Stub
from tests.telemetry.exchanges import exchange

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def exported(*exchanges: Exchange, share: float) -> list:
    """Exports these exchanges and returns the spans that a collector received."""
    with Stub() as collector:

        async def story() -> None:
            traces = RequestTraces(f"http://{collector.address}/v1/traces", model="m", version="1", share=share)
            for one in exchanges:
                traces.answered(one)
            if traces._kept._kept:
                traces._kept._begin()
                await asyncio.get_running_loop().shutdown_default_executor()
            traces.close()

        asyncio.run(story())
    spans = []
    for path, body in collector.posted:
        assert path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            spans += [span for scope in resource.scope_spans for span in scope.spans]
    return spans


def test_a_trace_of_the_client_continues_with_a_span_per_phase() -> None:
    spans = {span.name: span for span in exported(exchange(traceparent=SAMPLED), share=0.0)}
    root = spans.pop("infer m")
    assert root.trace_id.hex() == TRACE
    assert root.parent_span_id.hex() == PARENT
    assert list(spans) == ["decode", "queue", "prepare", "compute", "finish", "encode"]
    assert {span.parent_span_id for span in spans.values()} == {root.span_id}
    took_ms = {name: (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6 for name, span in spans.items()}
    assert took_ms == {"decode": 4, "queue": 20, "prepare": 1, "compute": 30, "finish": 2, "encode": 3}
    assert root.end_time_unix_nano - root.start_time_unix_nano == ms(60)
    attributes = {entry.key: entry.value.string_value for entry in root.attributes}
    assert attributes["headway.tenant"] == "acme"
    assert attributes["headway.request_id"] == "abc-1"
    assert "payload" not in str(root)


def test_a_client_that_declines_a_trace_gets_none_whatever_the_share() -> None:
    assert exported(exchange(traceparent=UNSAMPLED), share=1.0) == []


def test_a_share_of_the_requests_without_a_trace_begins_one() -> None:
    assert exported(exchange(), share=0.0) == []
    spans = exported(exchange(), exchange(), share=1.0)
    assert len({span.trace_id for span in spans}) == 2


def test_a_refused_request_is_one_span_that_says_so() -> None:
    refused = exchange(status=503, outcome=Rejected(Reason.QUEUE_FULL, 0), traceparent=SAMPLED)
    (span,) = exported(refused, share=0.0)
    assert span.status.code == 2
    assert {entry.value.string_value for entry in span.attributes} >= {"rejected", "queue_full"}


def test_a_client_cannot_have_all_its_requests_traced() -> None:
    spans = exported(*[exchange(traceparent=SAMPLED)] * 500, share=0.0)
    assert len([span for span in spans if span.name == "infer m"]) == 50


@pytest.mark.parametrize("header", ["", "nonsense", "00-1-2-01", f"00-{TRACE}-{PARENT}-xx", SAMPLED + "-more"])
def test_an_invalid_traceparent_header_is_not_sampled(header: str) -> None:
    assert not is_sampled(header)


def test_phases_never_begin_before_the_request() -> None:
    odd = exchange(settled_ns=ms(1010))
    assert all(began_ns >= odd.began_ns for _, began_ns, _ in phases(odd))
