"""Tests on a real Ray what happens if a client disconnects while its request waits: HAProxy closes the connection to
the replica, which counts the request and does not compute it."""

import os
import socket
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from prometheus_client.parser import text_string_to_metric_families

from serving.operate.launch import Cluster
from serving.protocol.binary_codec import encode_request
from serving.protocol.messages import InferInput, InferRequest
from tests.cluster.conftest import GRPC_PORT, MODEL, PORT, settings_file, started
from tests.patience import eventually

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(240)]

# Opening a pipe to read blocks until it is opened to write: an event for which other processes can wait.
GATED = """
from contextlib import suppress
from pathlib import Path
from models.reference import NumpyModel

def gated(spec, gate):
    def compute(x):
        with suppress(FileNotFoundError):
            Path(gate).open("rb").close()
        return (x[:, :1],)
    return NumpyModel(spec, compute)
"""
BEFORE = 3  # one is computed, at most one is cut ahead, one waits: so the next one has to wait too


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("leaving") / "gate"


@pytest.fixture(scope="module")
def cluster(gate: Path) -> Iterator[Cluster]:
    (gate.parent / "gated.py").write_text(GATED)
    limits = {"max_batch_rows": 1, "forward_timeout_s": 120}
    options = {"gate": str(gate)}
    model = {**MODEL, "name": "gated", "factory": "gated:gated", "options": options, "limits": limits}
    yield from started(settings_file(gate.parent, model))


def scraped() -> dict[str, float]:
    """Returns the replica's metrics of requests: "held" for those it has, and by outcome for those that ended."""
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    found = {"held": 0.0}
    for family in families:
        for sample in family.samples:
            if sample.name in ("headway_queued_requests", "headway_in_flight_requests"):
                found["held"] += sample.value
            elif sample.name == "headway_requests_total" and sample.value:
                found[sample.labels["outcome"]] = sample.value
    return found


@contextmanager
def closed(gate: Path) -> Iterator[None]:
    os.mkfifo(gate)
    try:
        yield
    finally:
        os.open(gate, os.O_RDWR)  # readers continue; it stays open for those that are about to open it
        gate.unlink()


def ask() -> float:
    with over_grpc.InferenceServerClient(f"127.0.0.1:{GRPC_PORT}") as client:
        return float(client.infer("gated", given(1.0)).as_numpy("y")[0, 0])


def given(value: float) -> list[over_grpc.InferInput]:
    x = over_grpc.InferInput("x", [1, 1024], "FP32")
    return [x.set_data_from_numpy(np.full((1, 1024), value, np.float32))]


def hang_up(until_queued: Callable[[], None]) -> None:
    array = np.full((1, 1024), 2, np.float32)
    body, length = encode_request(InferRequest((InferInput("x", "FP32", array),)))
    head = f"POST /v2/models/gated/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", PORT)) as client:
        client.sendall(f"{head}Inference-Header-Content-Length: {length}\r\n\r\n".encode() + body)
        until_queued()


def cancel(until_queued: Callable[[], None]) -> None:
    told: Future[object] = Future()
    with over_grpc.InferenceServerClient(f"127.0.0.1:{GRPC_PORT}") as client:
        call = client.async_infer("gated", given(2.0), callback=lambda result, error: told.set_result(error))
        until_queued()
        call.cancel()
        assert told.result(timeout=30).status() == "StatusCode.CANCELLED"


@pytest.mark.parametrize("leave", [hang_up, cancel])
def test_a_client_that_disconnects_while_queued_is_counted_and_not_computed(
    cluster: Cluster, gate: Path, leave
) -> None:
    with over_http.InferenceServerClient(f"127.0.0.1:{PORT}") as client:

        def counts() -> dict[str, int]:
            (told,) = client.get_inference_statistics("gated")["model_stats"]
            return {"computed": told["execution_count"], "failed": told["inference_stats"]["fail"]["count"]}

        before, ended_before = counts(), scraped()
        with ThreadPoolExecutor() as pool, closed(gate):
            others = [pool.submit(ask) for _ in range(BEFORE)]
            eventually(lambda: scraped()["held"] == BEFORE, beside=scraped)
            leave(lambda: eventually(lambda: scraped()["held"] == BEFORE + 1, beside=scraped))
            eventually(lambda: counts()["failed"] == before["failed"] + 1, beside=scraped)
            assert counts()["computed"] == before["computed"]
        assert [other.result() for other in others] == [1.0] * BEFORE
        assert counts() == {"computed": before["computed"] + BEFORE, "failed": before["failed"] + 1}
    cancelled, completed = (ended_before.get(outcome, 0) for outcome in ("cancelled", "completed"))
    expected = {"held": 0, "cancelled": cancelled + 1, "completed": completed + BEFORE}
    eventually(lambda: scraped() == expected, beside=scraped)
