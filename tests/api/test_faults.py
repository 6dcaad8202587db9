"""The table of faults: HTTP statuses, gRPC codes, and when to retry."""

import ast
from http import HTTPStatus
from pathlib import Path

import grpc
import pytest

from serving.api import faults
from serving.api.faults import Fault, fault_of_grpc, fault_of_outcome
from serving.core.errors import FeaturesUnavailable
from serving.core.outcome import Failed

SOURCES = Path(faults.__file__).parents[1]
# As google/rpc/code.proto maps them, the mapping that gRPC's gateways and proxies use.
CANONICAL = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
# Statuses that code.proto does not name, with the code that a gRPC client acts on in the same way.
FINER = {
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    413: "RESOURCE_EXHAUSTED",
    415: "UNIMPLEMENTED",
    431: "RESOURCE_EXHAUSTED",
    507: "RESOURCE_EXHAUSTED",
}
NUMBERS = {code.name: code.value[0] for code in grpc.StatusCode}


@pytest.mark.parametrize(("status", "name"), [*CANONICAL.items(), *FINER.items()])
def test_each_status_has_the_code_that_grpc_gives_it(status: int, name: str) -> None:
    assert Fault(status, "").grpc_code == NUMBERS[name]


@pytest.mark.parametrize(("status", "name"), CANONICAL.items())
def test_a_code_from_another_server_gets_its_canonical_status(status: int, name: str) -> None:
    fault = fault_of_grpc(NUMBERS[name], "text")
    assert (fault.status, fault.text) == (status, "text")


def test_an_unknown_code_from_another_server_is_an_internal_error() -> None:
    assert fault_of_grpc(NUMBERS["DATA_LOSS"], "lost").status == 500


def test_every_status_in_the_sources_is_in_the_table() -> None:
    calls = [
        node
        for path in SOURCES.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Fault" and node.args
    ]
    statuses = {node.args[0].value for node in calls if isinstance(node.args[0], ast.Constant)}
    statuses |= {status for _, status in faults._STATUS}
    assert statuses >= {403, 404, 408, 503}, "the search has found the sources"
    assert statuses <= {*CANONICAL, *FINER}
    assert all(HTTPStatus(status) for status in statuses - {499}), "499 is nginx's, for a client that has left"


@pytest.mark.parametrize(
    ("retry_after_ns", "sent"), [(1_500_000_000, b"1500"), (1, b"1"), (0, b"1"), (2_999_999, b"2"), (None, None)]
)
def test_grpc_is_told_in_milliseconds_when_to_come_back(retry_after_ns: int | None, sent: bytes | None) -> None:
    fault = Fault(503, "busy", ((b"retry-after", b"1"),), retry_after_ns)
    assert fault.grpc_trailers == (() if sent is None else ((b"grpc-retry-pushback-ms", sent),))


def test_headers_of_grpc_are_trailers_too_and_those_of_http_are_not() -> None:
    own = (b"grpc-accept-encoding", b"gzip")
    assert Fault(415, "", (own, (b"connection", b"close"))).grpc_trailers == (own,)


def test_features_that_cannot_be_read_now_are_worth_a_retry() -> None:
    fault = fault_of_outcome(Failed(FeaturesUnavailable("stats.age: the feature store does not answer")))
    assert (fault.status, dict(fault.headers)[b"retry-after"]) == (503, b"1")
    assert dict(fault.grpc_trailers)[b"grpc-retry-pushback-ms"] == b"1000"
