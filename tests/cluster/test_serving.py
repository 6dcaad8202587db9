"""Headway on a real Ray, behind the real HAProxy, called by the real tritonclient."""

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

from serving.cluster.launcher import Cluster, get_json
from serving.cluster.processes import descendants
from serving.config import load_settings
from tests.cluster.conftest import NOOP, PORT, SLOW, settings_file

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(240)]

ADDRESS = f"127.0.0.1:{PORT}"


def inputs(value: float = 1.0) -> list[tritonclient.http.InferInput]:
    x = tritonclient.http.InferInput("x", [1, 1024], "FP32")
    x.set_data_from_numpy(np.full((1, 1024), value, np.float32))
    return [x]


class Traffic:
    """Clients that ask one model without pause until they are told to stop, and what became of every request."""

    def __init__(self, model: str, clients: int) -> None:
        self._model = model
        self._clients = clients
        self.outcomes: Counter[str] = Counter()
        self._stopping = False

    async def __aenter__(self) -> "Traffic":
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def until_answered(self, count: int) -> None:
        """Returns when so many more have been answered well."""
        goal = self.outcomes["ok"] + count
        while self.outcomes["ok"] < goal:
            await asyncio.sleep(0.01)

    async def _ask(self) -> None:
        async with tritonclient.http.aio.InferenceServerClient(ADDRESS) as client:
            while not self._stopping:
                try:
                    await client.infer(self._model, inputs())
                    self.outcomes["ok"] += 1
                except InferenceServerException as error:
                    self.outcomes[f"{error.status()} {error.message()[:60]}"] += 1
                except OSError as error:
                    self.outcomes[f"connection: {type(error).__name__}"] += 1


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


def test_the_fast_door_is_open_and_each_model_answers_for_itself(cluster: Cluster) -> None:
    with tritonclient.http.InferenceServerClient(ADDRESS) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("noop")
        answer = client.infer("noop", inputs(3.0)).as_numpy("y")
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


def test_one_model_is_updated_while_another_serves_and_nothing_is_lost(cluster: Cluster, tmp_path: Path) -> None:
    from serving.cluster.app import deploy

    faster = SLOW | {"options": {"base_ms": 5, "per_row_ms": 1}}
    settings = load_settings(settings_file(tmp_path, NOOP, faster))

    async def story() -> tuple[Counter[str], Counter[str]]:
        old = set(replica_processes("slow"))
        async with Traffic("noop", clients=4) as bystander, Traffic("slow", clients=4) as updated:
            await updated.until_answered(20)
            await asyncio.to_thread(deploy, settings, gpus=False)
            while old & set(replica_processes("slow")):
                await asyncio.sleep(0.2)
            await updated.until_answered(20)
        return bystander.outcomes, updated.outcomes

    bystander, updated = asyncio.run(story())
    assert set(bystander) == {"ok"}, bystander
    assert set(updated) == {"ok"}, updated
