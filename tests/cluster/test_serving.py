"""Tests Headway on a real Ray, behind the real HAProxy, with the real tritonclient."""

import asyncio
import json
import os
import signal
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import tritonclient.http
from prometheus_client.parser import text_string_to_metric_families
from ray import serve
from tritonclient.utils import InferenceServerException

from serving.cluster.front.collector import Replies
from serving.cluster.front.evidence import EvidenceSource
from serving.core.octaves import bucket_of
from serving.operate.launch import Cluster, get_json
from serving.operate.processes import descendants
from serving.telemetry.log_files import LogFiles
from serving.traffic.trial import Trial
from tests.cluster.conftest import PORT
from tests.cluster.traffic import Traffic, inputs
from tests.patience import eventually

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(240)]

ADDRESS = f"127.0.0.1:{PORT}"


def way_into(model: str) -> tuple[str, str]:
    parameters = get_json(f"http://{ADDRESS}/v2/models/{model}/config")["parameters"]
    return parameters["door"]["string_value"], parameters["infer_way"]["string_value"]


def replica_processes(model: str) -> list[int]:
    found = []
    for pid in descendants(os.getpid()):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:
            continue
        if command.startswith(f"ray::ServeReplica:{model}:"):
            found.append(pid)
    return found


def scraped(path: str = "/metrics") -> dict[tuple[str, str], dict[str, float]]:
    """Returns the values by metric and model, then by replica; sums series that differ in other labels."""
    with urllib.request.urlopen(f"http://{ADDRESS}{path}", timeout=10) as answer:
        text = answer.read().decode()
    found: dict[tuple[str, str], dict[str, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            by_replica = found.setdefault((sample.name, sample.labels.get("model", "")), {})
            replica = sample.labels.get("replica", "")
            by_replica[replica] = by_replica.get(replica, 0) + sample.value
    return found


def test_the_fast_door_is_open_and_each_model_answers_for_itself(cluster: Cluster) -> None:
    with tritonclient.http.InferenceServerClient(ADDRESS) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("noop")
        answer = client.infer("noop", inputs(value=3.0)).as_numpy("y")
        assert answer.shape == (1, 1)
        names = {entry["name"] for entry in client.get_model_repository_index()}
        assert names == {"noop", "slow", "words", "accumulate"}
        with pytest.raises(InferenceServerException, match="unknown model"):
            client.infer("nobody", inputs())
    assert way_into("noop") == ("fast", "short")


def test_the_announcement_names_every_model_its_device_and_its_door(cluster: Cluster) -> None:
    said = "\n".join(cluster.announcement())
    assert f"http://{ADDRESS}" in said
    assert "noop: ready on cpu, fast door" in said


def test_one_scrape_has_the_metrics_of_every_replica_of_every_model(cluster: Cluster) -> None:
    async def story() -> None:
        async with Traffic("slow", clients=8) as traffic:
            await traffic.until_answered(40)

    def counts(found: dict[tuple[str, str], dict[str, float]]) -> list[float]:
        return list(found["headway_requests_total", "slow"].values())

    asyncio.run(story())
    # The collected metrics are cached for a second.
    found = eventually(scraped, lambda found: sum(counts(found)) >= 40)
    assert len(counts(found)) == 2
    assert all(count > 0 for count in counts(found)), "who is ready has all replicas, and all of them get their share"
    assert len(found["headway_queued_requests", "noop"]) == 1
    assert found["headway_replicas_running", "slow"] == {"": 2}
    assert found["headway_model_ready", "noop"] == {"": 1}
    (target,) = get_json(f"http://{ADDRESS}/metrics/targets")
    node = target["labels"]["__param_node"]
    assert target["targets"] == [f"{node}:{PORT}"]
    assert len(scraped(f"/metrics?node={node}")["headway_requests_total", "slow"]) == 2
    assert ("headway_requests_total", "slow") not in scraped("/metrics?node=10.9.9.9")


def test_requests_are_recorded_without_their_contents(cluster: Cluster, recorded: Path) -> None:
    with tritonclient.http.InferenceServerClient(ADDRESS) as client:
        client.infer("noop", inputs(value=3.0), priority=2, timeout=5_000_000)

    def lines() -> list[dict[str, Any]]:
        texts = [text for path in recorded.glob("noop_*.jsonl") for text in path.read_text().splitlines(keepends=True)]
        whole = [json.loads(text) for text in texts if text.endswith("\n")]
        return [line for line in whole if line["priority"] == 2]

    found = eventually(lines, bool)
    assert found[0]["inputs"] == {"x": {"datatype": "FP32", "shape": [1, 1024]}}
    assert (found[0]["model"], found[0]["deadline_ms"]) == ("noop", 5000.0)


def test_the_front_keeps_history_for_the_dashboard_without_anybody_looking(cluster: Cluster) -> None:
    def points() -> list[dict[str, Any]]:
        return list(get_json(f"http://{ADDRESS}/dashboard/data?model=slow")["points"])

    last = eventually(points, lambda points: points and points[-1]["running"] == 2)[-1]
    told = get_json(f"http://{ADDRESS}/dashboard/data?since={last['at']}")
    assert {model["name"] for model in told["models"]} == {"noop", "slow", "words", "accumulate"}


def test_a_replica_that_hangs_is_left_out_of_the_scrape_and_counted(cluster: Cluster) -> None:
    hanging = replica_processes("slow")[0]
    os.kill(hanging, signal.SIGSTOP)
    try:
        # The collected metrics are cached for a second.
        found = eventually(scraped, lambda found: found["headway_replicas_silent", "slow"][""])
    finally:
        os.kill(hanging, signal.SIGCONT)
    assert found["headway_replicas_silent", "slow"] == {"": 1}
    assert len(found["headway_requests_total", "slow"]) == 1
    assert found["headway_replicas_silent", "noop"] == {"": 0}
    assert found["headway_collect_seconds", ""][""] < 5


def test_a_request_is_named_in_its_answer_and_logged_for_programs_and_people(cluster: Cluster) -> None:
    with tritonclient.http.InferenceServerClient(ADDRESS) as client:
        answer = client.infer("noop", inputs(), headers={"x-request-id": "find-me"})
    assert answer.get_response()["model_name"] == "noop"
    files = LogFiles()
    (line,) = eventually(lambda: [line for line in files.new_lines() if "find-me" in line.raw], bool)
    assert line.who.startswith("noop ")
    assert line.text.startswith("noop: completed 200 in ")
    told = json.loads(line.raw)
    assert (told["request_id"], told["model"], told["outcome"], told["wire"]) == (
        "find-me",
        "noop",
        "completed",
        "http",
    )


def test_a_client_on_the_machine_may_read_the_debug_pages(cluster: Cluster) -> None:
    models = {model["name"]: model for model in get_json(f"http://{ADDRESS}/debug/state")["models"]}
    assert set(models) == {"noop", "slow", "words", "accumulate"}
    for model in models.values():
        assert (model["state"], model["silent"], len(model["replicas"])) == ("READY", 0, model["wanted"])
        assert {replica["balance"] for replica in model["replicas"]} == {"good"}
    stacks = get_json(f"http://{ADDRESS}/debug/stacks")["slow"]
    assert any("lane-slow-0-compute" in name for name in stacks[0]["threads"])
    assert "lines" in models["slow"]["replicas"][0]


def test_the_front_collects_evidence_and_values_of_two_applications(cluster: Cluster) -> None:
    """Two models stand for two versions; the second has two replicas, and any of them may receive a value."""

    def replies(model: str, method: str, arguments: tuple[Any, ...]) -> Replies:
        return Replies(serve.get_app_handle(model).broadcast(method, *arguments).results())

    async def ask(method: str, *arguments: Any, of: Sequence[str]) -> dict[str, Replies]:
        return {model: await asyncio.to_thread(replies, model, method, arguments) for model in of}

    source = EvidenceSource(ask)
    trial = Trial.begin(time.time())

    def observed() -> Trial:
        nonlocal trial
        found = asyncio.run(source.collect("noop", "slow"))
        trial = trial.observed(found.candidate, found.stable, time.time(), found.values)
        return trial

    observed()  # says from where to count
    with tritonclient.http.InferenceServerClient(ADDRESS) as client, httpx.Client(base_url=f"http://{ADDRESS}") as http:
        for number in range(10):
            client.infer("noop", inputs(), request_id=f"noop-{number}")
            client.infer("slow", inputs(), request_id=f"slow-{number}")
        assert http.post("/v2/models/noop/infer", json={}).status_code == 400
        assert observed().candidate.counted.answered == 10
        values = [{"id": f"{name}-{number}", "value": 0.25} for name in ("noop", "slow") for number in range(10)]
        values += [{"id": "noop-3", "value": 1}, {"id": "of nobody", "value": 1}]
        assert http.post("/v2/models/slow/feedback", json=values).json() == {"received": 22}
        assert http.post("/v2/models/noop/versions/1/feedback", json={"id": "a"}).status_code == 400
    eventually(observed, lambda seen: seen.candidate.values and seen.stable.values, every_s=0.5)
    assert (trial.candidate.values, trial.stable.values) == ({25: 10}, {25: 10})
    assert (trial.candidate.counted.failed, trial.stable.counted.answered) == (0, 10)
    assert sum(trial.stable.counted.latency.values()) == 10
    assert min(trial.stable.counted.latency) >= bucket_of(20_000_000)


def test_killing_a_replica_under_load_costs_no_request_more_than_a_retry(cluster: Cluster) -> None:
    async def story() -> Counter[str]:
        async with Traffic("slow", clients=16) as traffic:
            await traffic.until_answered(100)
            before = replica_processes("slow")
            assert len(before) == 2
            os.kill(before[0], signal.SIGKILL)
            await traffic.until_answered(200)
            while len([pid for pid in replica_processes("slow") if pid not in before]) < 1:
                await asyncio.sleep(0.1)
            await traffic.until_answered(200)
        return traffic.outcomes

    outcomes = asyncio.run(story())
    unclear = {what for what in outcomes if what != "ok" and not what.startswith("503")}
    assert not unclear, outcomes
