"""Tests that a model is replaced by its next version under load, on a real Ray where each step takes seconds: HAProxy
needs three to start with a new list of replicas, and a new replica two to load its model."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import ModuleType

import pytest
import tritonclient.http
from tritonclient.utils import InferenceServerException

from serving.cluster.app import deploy
from serving.cluster.haproxy.command import REAL_BINARY, real_binary
from serving.config import load_settings
from serving.operate.launch import Cluster
from tests.cluster.conftest import NOOP, SLOW, settings_file, started
from tests.cluster.test_serving import replica_processes
from tests.cluster.traffic import GRPC, HTTP, Traffic, address, asked_once
from tests.patience import eventually

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]

SLOW_HAPROXY = """\
#!/bin/sh
sleep 3
exec {real} "$@"
"""
LATE = """
import time
from pathlib import Path
from models.reference import slow

def late(spec, flag="", **options):
    time.sleep(2)
    if flag and Path(flag).exists():
        raise RuntimeError("the weights are gone")
    return slow(spec, **options)
"""
PAIR = SLOW | {"name": "pair", "factory": "late:late", "options": {"base_ms": 20, "per_row_ms": 1}}
NEXT = PAIR | {"options": {"base_ms": 5, "per_row_ms": 1}}
ROOM: dict[str, Mapping[str, float]] = {"beside": {"CPU": 100}, "in place": {}}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("updating")
    (folder / "late.py").write_text(LATE)
    slow_haproxy = folder / "slow-haproxy"
    slow_haproxy.write_text(SLOW_HAPROXY.format(real=real_binary()))
    slow_haproxy.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(REAL_BINARY, str(slow_haproxy))
        single = PAIR | {"name": "single", "replicas": 1, "options": {"flag": str(folder / "flag")}}
        yield from started(settings_file(folder, NOOP, PAIR, single, model_control=True))


@pytest.mark.parametrize("room", ROOM)
def test_an_update_loses_no_request_however_late_haproxy_learns_of_it(cluster: Cluster, room: str) -> None:
    settings = load_settings(settings_file(Path(cluster.folder), NOOP, NEXT if room == "beside" else PAIR))

    async def story() -> dict[str, Counter[str]]:
        old = set(replica_processes("pair"))
        assert len(old) == 2
        async with AsyncExitStack() as stack:
            idle = {
                wire: await stack.enter_async_context(wire.InferenceServerClient(address(wire)))
                for wire in (HTTP, GRPC)
            }
            for wire, client in idle.items():
                assert await asked_once(client, "pair", wire) == "ok"
            bystander = await stack.enter_async_context(Traffic("noop", clients=2))
            over_http = await stack.enter_async_context(Traffic("pair", clients=4))
            over_grpc = await stack.enter_async_context(Traffic("pair", clients=4, wire=GRPC))
            await over_http.until_answered(20)
            await asyncio.to_thread(deploy, settings, gpus=False, only="pair", free=ROOM[room])
            await asyncio.to_thread(
                eventually, lambda: old & set(replica_processes("pair")), lambda left: not left, 120
            )
            await over_http.until_answered(20)
            await over_grpc.until_answered(20)
            waked = Counter([await asked_once(client, "pair", wire) for wire, client in idle.items()])
        return {
            "other model": bystander.outcomes,
            "http": over_http.outcomes,
            "grpc": over_grpc.outcomes,
            "idle": waked,
        }

    for who, outcomes in asyncio.run(story()).items():
        assert set(outcomes) == {"ok"}, (who, outcomes)


@pytest.fixture
def triton(cluster: Cluster) -> Iterator[tritonclient.http.InferenceServerClient]:
    with tritonclient.http.InferenceServerClient(address(HTTP), network_timeout=120) as client:
        yield client


def states(triton: tritonclient.http.InferenceServerClient) -> dict[str, tuple[str, str]]:
    return {entry["name"]: (entry["state"], entry["reason"]) for entry in triton.get_model_repository_index()}


async def asked(wire: ModuleType) -> str:
    async with wire.InferenceServerClient(address(wire)) as client:
        return await asked_once(client, "single", wire)


async def loaded_under_traffic() -> tuple[str, set[str]]:
    """Loads the model while clients send requests and readiness is checked. Returns the reason if that failed, and how
    the clients' requests ended."""
    failure = ""
    found: set[str] = set()
    async with AsyncExitStack() as stack:
        admin, prober = [
            await stack.enter_async_context(HTTP.InferenceServerClient(address(HTTP), conn_timeout=120))
            for _ in range(2)
        ]
        over_http = await stack.enter_async_context(Traffic("single", clients=2))
        over_grpc = await stack.enter_async_context(Traffic("single", clients=2, wire=GRPC))
        await over_http.until_answered(5)
        loading = asyncio.create_task(admin.load_model("single"))
        while not loading.done():
            index = {entry["name"]: entry["state"] for entry in await prober.get_model_repository_index()}
            if index["single"] != "READY" or not await prober.is_server_ready():
                found.add("not ready")
            await asyncio.sleep(0.1)
        if isinstance(error := loading.exception(), InferenceServerException):
            failure = str(error.message())
        await over_http.until_answered(5)
        await over_grpc.until_answered(5)
    return failure, found | set(over_http.outcomes) | set(over_grpc.outcomes)


def test_a_model_that_is_loaded_again_answers_all_the_while_and_with_its_new_replica_afterwards(
    cluster: Cluster, triton: tritonclient.http.InferenceServerClient
) -> None:
    def replica() -> str:
        return str(triton.get_model_config("single")["parameters"]["replica"]["string_value"])

    before = replica()
    assert asyncio.run(loaded_under_traffic()) == ("", {"ok"})
    # On new connections: the draining replica may still answer on one that was open before.
    with tritonclient.http.InferenceServerClient(address(HTTP)) as triton:
        assert before not in {replica() for _ in range(4)}


def test_a_model_whose_new_code_fails_goes_on_with_the_old_and_its_entry_says_why(
    cluster: Cluster, triton: tritonclient.http.InferenceServerClient
) -> None:
    flag = Path(cluster.folder, "flag")
    flag.touch()
    failure, outcomes = asyncio.run(loaded_under_traffic())
    flag.unlink()
    assert "the weights are gone" in failure
    assert outcomes == {"ok"}
    assert states(triton)["single"] == ("READY", "RuntimeError: the weights are gone (late.py, line 9)")
    triton.load_model("single")
    assert states(triton)["single"] == ("READY", "")


def test_a_model_that_is_unloaded_is_gone_though_its_replica_still_drains_and_can_be_loaded_again(
    cluster: Cluster, triton: tritonclient.http.InferenceServerClient
) -> None:
    triton.unload_model("single")
    assert replica_processes("single")
    assert states(triton)["single"] == ("UNAVAILABLE", "unloaded")
    assert triton.is_server_ready()
    for wire in (HTTP, GRPC):
        assert "has no available versions" in asyncio.run(asked(wire))
    triton.load_model("single")
    assert states(triton)["single"] == ("READY", "")
