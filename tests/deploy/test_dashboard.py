"""Tests the Grafana dashboard: runs every query against a real Prometheus that has scraped Headway's metrics."""

import json
import threading
import urllib.parse
import urllib.request
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from serving.core.batch import Batch, CutReason
from serving.core.outcome import Expired, Timings
from serving.core.statistics import ModelStatistics, WireTimes
from serving.telemetry.cache import CacheCounts
from serving.telemetry.prometheus import exposition
from serving.telemetry.recorder import Recorder
from serving.telemetry.snapshot import GpuReading
from tests.core.stories import ms, request
from tests.deploy.conftest import PROMETHEUS, ROOT, Stub, running, tool
from tests.deploy.test_alerts import unknown_metrics
from tests.patience import eventually
from tests.ports import free_port
from tests.telemetry.snapshots import cluster, replica

DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "headway.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
GPU = GpuReading(uuid="GPU-1", busy_ratio=0.5, memory_used_bytes=3, memory_total_bytes=8, power_watts=70.0)


class Served:
    """A replica that serves a batch and loses a request between any two scrapes."""

    def __init__(self) -> None:
        self._recorder = Recorder()
        self._statistics = ModelStatistics()
        self._wire = WireTimes()
        self._cache = CacheCounts()
        self._seconds = 0
        self._lock = threading.Lock()

    def page(self, path: str) -> bytes:
        with self._lock:
            self._serve()
            told = replica(
                statistics=self._statistics,
                wire=self._wire,
                cache=self._cache,
                counts=self._recorder.counts(),
                gpus=(GPU,),
                queued=4,
                expected_wait_ns=ms(20),
                price_per_hour=2.0,
                uptime_ns=self._seconds * 1_000_000_000,
                cpu_ns=self._seconds * 500_000_000,
            )
            return exposition(cluster(told, limit=10))

    def _serve(self) -> None:
        self._seconds += 1
        self._cache.answered["memory"] += 2
        self._cache.missed += 1
        self._cache.saved_ns += ms(20)
        riders = [request(tenant="acme"), request(tenant="beta"), request(tenant="acme")]
        batch = Batch(
            id=1,
            lane_index=0,
            requests=riders,
            rows=3,
            padded_rows=4,
            length=1,
            cut_ns=0,
            start_ns=0,
            finish_ns=ms(40),
            charged_ns=0,
            reason=CutReason.FULL,
        )
        self._recorder.batch_settled(batch, ms(35))
        self._recorder.requests_completed(riders, [ms(2), ms(4), ms(5)], Timings(ms(1), ms(33), ms(1), 3))
        self._recorder.request_ended("acme", Expired(ms(9)))
        self._statistics.inference_count += 3
        own = self._statistics
        for stage in (self._wire.decode, self._wire.encode):
            stage.add(ms(1))
        for stage in (own.success, own.queue, own.compute_input, own.compute_infer, own.compute_output):
            stage.add(ms(30), 3)


def ask(port: int, query: str) -> list[dict[str, Any]]:
    """Returns the instant values of a query, as Grafana would send it for all models over a short range."""
    query = query.replace("$__rate_interval", "20s").replace("$model", ".*")
    url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": query})
    with urllib.request.urlopen(url, timeout=5) as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found


def test_the_dashboard_speaks_of_metrics_that_exist_and_says_what_each_panel_means() -> None:
    for title, query in QUERIES:
        assert not unknown_metrics(query), title
    assert all("description" in panel for panel in PANELS)
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == ["Traffic and health", "Batches", "Infrastructure", "Cost"]


def test_no_panels_overlap() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    ids = sorted(panel["id"] for panel in DASHBOARD["panels"])
    assert all(one < other for one, other in pairwise(ids))


def test_every_query_of_the_dashboard_has_an_answer_from_a_real_prometheus(tmp_path: Path) -> None:
    prometheus = tool("prometheus")
    port = free_port()
    with Stub(Served().page) as replicas:
        config = {
            "global": {"scrape_interval": "500ms", "scrape_timeout": "400ms", "evaluation_interval": "500ms"},
            "rule_files": [str(PROMETHEUS / "rules.yml")],
            "scrape_configs": [{"job_name": "headway", "static_configs": [{"targets": [replicas.address]}]}],
        }
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
        command = [
            prometheus,
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with running(command, f"http://127.0.0.1:{port}/-/ready", tmp_path / "log"):
            waiting = {f"{title}: {query}": query for title, query in QUERIES}
            eventually(lambda: _answered(port, waiting), beside=lambda: waiting)
            (p95,) = [series["value"][1] for series in ask(port, "model:headway_request_seconds:p95_5m")]
            assert 0.035 < float(p95) < 0.05
            (errors,) = [series["value"][1] for series in ask(port, "model:headway_error_ratio:rate5m")]
            assert 0.1 < float(errors) < 0.4


def _answered(port: int, waiting: dict[str, str]) -> bool:
    """Removes the queries from `waiting` that have values now. Returns whether none is left."""
    for name, query in list(waiting.items()):
        found = ask(port, query)
        if found and all(series["value"][1] not in ("NaN", "+Inf", "-Inf") for series in found):
            del waiting[name]
    return not waiting
