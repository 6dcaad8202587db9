"""Tests the prediction cache on `headway serve` as a user starts it: real Ray, HAProxy, Valkey and clients."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc
from typer.testing import CliRunner

from serving.cli import app
from tests.cluster.conftest import SLOW, settings_file
from tests.patience import eventually

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(240)]
PORT, GRPC_PORT = 18541, 18543
URL = f"http://127.0.0.1:{PORT}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The log of a server whose model has two replicas and a cache."""
    folder = tmp_path_factory.mktemp("cached")
    model = {**SLOW, "cache": {"ttl_s": 600}}
    path = settings_file(
        folder,
        model,
        http_port=PORT,
        grpc_port=GRPC_PORT,
        state=str(folder),
        tenant_header="x-tenant",
        cpu_hour_price=1,
    )
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "serving", "serve", str(path)], stdout=output, stderr=output)
    try:
        eventually(lambda: (process.poll(), log.read_text()), lambda seen: "is ready at" in seen[1], patience_s=120)
        yield log
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def asked(value: float, tenant: str = "acme") -> str:
    """Asks over a new connection, so that any replica may answer. Returns what the cache had."""
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1024], "data": [value] * 1024}]}
    answer = httpx.post(f"{URL}/v2/models/slow/infer", json=body, headers={"x-tenant": tenant}, timeout=30)
    assert answer.json()["outputs"][0]["data"] == [value] * 1024
    return answer.headers["x-headway-cache"]


def clear(*more: str) -> dict[str, int]:
    done = CliRunner().invoke(app, ["cache", "clear", "slow", "--url", URL, "--json", *more], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    removed: dict[str, int] = json.loads(done.stdout)
    return removed


def test_a_valkey_is_started_for_the_cache(served: Path) -> None:
    assert "cache: kept in a Valkey of Headway's own" in served.read_text()


def test_replicas_share_answers_until_they_are_cleared(served: Path) -> None:
    assert asked(1) == "miss"
    eventually(lambda: [asked(1) for _ in range(10)], lambda seen: set(seen) == {"hit"})  # both replicas have it
    assert asked(1, "blue") == "miss"
    eventually(lambda: asked(1, "blue"), lambda seen: seen == "hit")
    removed = clear("--tenant", "acme")
    assert removed["shared"] == 1
    assert removed["in_memory"] >= 1
    assert asked(1, "blue") == "hit"
    assert asked(1) == "miss"
    clear()
    assert (asked(1), asked(1, "blue")) == ("miss", "miss")


def test_one_answer_serves_both_wires(served: Path) -> None:
    asked(2)
    given = tritonclient.grpc.InferInput("x", [1, 1024], "FP32")
    given.set_data_from_numpy(np.full((1, 1024), 2, np.float32))

    def hits() -> int:
        (stats,) = httpx.get(f"{URL}/v2/models/slow/stats").json()["model_stats"]
        return int(stats["inference_stats"]["cache_hit"]["count"])

    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{GRPC_PORT}") as client:
        before = hits()
        answer = client.infer("slow", [given], headers={"x-tenant": "acme"})
        assert answer.as_numpy("y").tolist() == [[2.0] * 1024]
        eventually(hits, lambda count: count > before)


def test_metrics_and_dashboard_tell_what_the_cache_saves(served: Path) -> None:
    for _ in range(3):
        asked(3)
    page = httpx.get(f"{URL}/metrics").text
    hits = [line for line in page.splitlines() if line.startswith("headway_cache_requests_total") and '"hit"' in line]
    assert sum(float(line.split()[-1]) for line in hits) > 0
    saved = [line for line in page.splitlines() if line.startswith("headway_cache_saved_cost_total")]
    assert sum(float(line.split()[-1]) for line in saved) > 0
    points = eventually(lambda: httpx.get(f"{URL}/dashboard/data?model=slow").json()["points"])
    assert all("cache" in point for point in points)


def test_the_cache_of_a_model_that_is_not_there_cannot_be_cleared(served: Path) -> None:
    done = CliRunner().invoke(app, ["cache", "clear", "nobody", "--url", URL])
    assert done.exit_code == 1
    assert "nobody" in done.stderr
