"""Tests the table of `headway top`, which is computed from two snapshots of a server."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from rich.console import Console

from serving.top import lines, look, table
from tests.ports import free_port


def replica(name: str, **changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {"replica": name, "queued": 3, "in_flight": 2, "expected_wait_ms": 12.0, "lanes": 1}
    fields |= {"busy_ns": 0, "rows": 0, "batches": 0, "ended": {}}
    fields |= {"request_ns": {"bounds": [10_000_000, 50_000_000], "counts": [0, 0, 0]}}
    return fields | changes


def state(*replicas: dict[str, Any], **changes: Any) -> dict[str, Any]:
    model: dict[str, Any] = {"name": "m", "state": "READY", "running": 2, "wanted": 2, "limit": None, "silent": 0}
    return {"models": [model | {"decisions": [], "replicas": list(replicas)} | changes]}


BEFORE = state(replica("a", ended={"Completed": 100}, busy_ns=500_000_000, rows=100, batches=50))
AFTER = state(
    replica(
        "a",
        ended={"Completed": 280, "Expired": 4},
        busy_ns=1_500_000_000,
        rows=280,
        batches=70,
        request_ns={"bounds": [10_000_000, 50_000_000], "counts": [100, 80, 0]},
    ),
    replica("b", ended={"Completed": 20}, rows=20, batches=20),
    decisions=[{"reason": "a wait of 612 ms, 250 ms are allowed"}],
)


def test_rates_are_those_between_the_looks_and_all_replicas_count() -> None:
    (line,) = lines(BEFORE, AFTER, seconds=2.0)
    assert line.ended == {"Completed": 100.0, "Expired": 2.0}
    assert (line.queued, line.in_flight, line.busy_ratio, line.mean_batch_rows) == (6, 4, 0.5, 5.0)
    assert line.p95_ms == 50.0


def test_a_model_that_sleeps_or_just_started_has_no_latency_and_no_batches() -> None:
    (line,) = lines(BEFORE, state(running=0, wanted=0), seconds=2.0)
    assert (line.p95_ms, line.mean_batch_rows, line.queued, line.ended) == (None, None, 0, {})


def test_the_table_says_what_is_wrong_and_why_there_are_so_many_replicas() -> None:
    console = Console(width=200, record=True, file=None, force_terminal=False)
    wrong = state(
        *AFTER["models"][0]["replicas"], wanted=4, limit=10, silent=1, decisions=AFTER["models"][0]["decisions"]
    )
    with console.capture() as captured:
        console.print(table(lines(BEFORE, wrong, 2.0)))
    text = captured.get()
    for fact in ("2 of 4 (≤ 10) 1 silent", "Expired 2.0", "≤ 50", "a wait of 612 ms, 250 ms are allowed"):
        assert fact in text, text


def test_the_models_names_and_all_numbers_are_read_on_eighty_columns() -> None:
    console = Console(width=80, force_terminal=False)
    named = state(replica("a"), name="image-classifier")
    with console.capture() as captured:
        console.print(table(lines(named, named, 2.0)))
    text = captured.get()
    assert "image-classifier" in text
    assert "…" not in text
    assert "last scaling" not in text


def test_an_address_without_headway_is_reported_as_such() -> None:
    closed = f"127.0.0.1:{free_port()}"
    with pytest.raises(OSError, match="Connection refused"):
        look(closed)
    with pytest.raises(OSError, match="unknown url type"):
        look("htp://127.0.0.1")
    other = Answering(b"<html>")
    with other as address, pytest.raises(OSError, match="no Headway answers there"):
        look(f"http://{address}/")
    assert other.asked == ["/debug/state"]


class Answering:
    """A server on loopback that answers one request with this body."""

    def __init__(self, body: bytes) -> None:
        self.asked: list[str] = []
        answering = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answering.asked.append(self.path)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.handle_request)

    def __enter__(self) -> str:
        self._thread.start()
        return f"127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._server.server_close()
