"""Tests on a real Ray that replicas are added and removed with the load, and that no request is lost."""

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest
import tritonclient.http
from ray import serve

from serving.cluster import decisions
from serving.operate.launch import Cluster
from tests.cluster.conftest import SLOW, settings_file, started
from tests.cluster.test_serving import ADDRESS
from tests.cluster.traffic import Traffic, inputs
from tests.patience import eventually

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(240)]

PATIENCE_S = 60
ELASTIC = {key: value for key, value in SLOW.items() if key != "replicas"} | {
    "name": "elastic",
    "options": {"base_ms": 10, "per_row_ms": 10},
    "limits": {"max_batch_rows": 4},
    "scaling": {"min_replicas": 1, "max_replicas": 2, "max_wait_ms": 60, "up_after_s": 1, "down_after_s": 4},
}
SLEEPER = ELASTIC | {"name": "sleeper", "scaling": {"min_replicas": 0, "max_replicas": 1, "down_after_s": 2}}


@pytest.fixture(scope="module")
def elastic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    yield from started(settings_file(tmp_path_factory.mktemp("elastic"), ELASTIC, SLEEPER))


def running(model: str) -> int:
    states: Counter[str] = Counter()
    for deployment in serve.status().applications[model].deployments.values():
        states.update(deployment.replica_states)
    return states["RUNNING"]


async def until_running(model: str, count: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await asyncio.to_thread(running, model) != count:
            await asyncio.sleep(0.2)


def test_replicas_come_with_the_load_and_go_with_it_and_nothing_is_lost(elastic: Cluster) -> None:
    async def story() -> tuple[Counter[str], Counter[str]]:
        async with Traffic("elastic", clients=1, pause_s=0.1) as trickle:
            async with Traffic("elastic", clients=24) as flood:
                await until_running("elastic", 2)
                await flood.until_answered(100)
            await until_running("elastic", 1)
            await trickle.until_answered(20)
        return trickle.outcomes, flood.outcomes

    trickle, flood = asyncio.run(story())
    assert set(trickle) == {"ok"}, trickle
    assert set(flood) == {"ok"}, flood
    causes = [(one["current"], one["wanted"], one["cause"]) for one in decisions.recent("elastic")]
    assert (1, 2, "wait") in causes, causes
    assert causes[-1] == (2, 1, "idle"), causes
    grown = next(one for one in decisions.recent("elastic") if one["cause"] == "wait")
    assert grown["reason"].endswith("60 ms are allowed")
    assert grown["replicas"] == 1
    assert grown["wait_ms"] > 60


def test_the_first_request_to_a_sleeping_model_waits_for_it_and_is_answered(elastic: Cluster) -> None:
    asyncio.run(until_running("sleeper", 0))
    with tritonclient.http.InferenceServerClient(ADDRESS, network_timeout=PATIENCE_S) as client:
        assert client.is_server_ready(), "a model that sleeps is ready: it answers"
        assert client.infer("sleeper", inputs(value=3.0)).as_numpy("y")[0, 0] == 3.0
    eventually(
        lambda: decisions.recent("sleeper"), lambda recent: "awakened" in [one["cause"] for one in recent], PATIENCE_S
    )
