"""Tests operations other than inference on a real Ray: loading and unloading, shared memory, statistics, settings.

They run in the order of a client that ships with Triton, on a server of their own.
"""

import contextlib
import json
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from tritonclient.utils import InferenceServerException
from tritonclient.utils import shared_memory as shm

from serving.operate.launch import Cluster
from serving.operate.processes import descendants
from tests.cluster.conftest import GRPC_PORT, NOOP, PORT, SLOW, settings_file, started
from tests.patience import eventually
from tests.test_clients_guide import NEEDS_RAY, check_example

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(240)]

FRAGILE = """
from pathlib import Path
from models.reference import noop

def fragile(spec, flag):
    if Path(flag).exists():
        raise RuntimeError("the weights are gone")
    return noop(spec)
"""

LINEAR = {
    "name": "linear",  # as in docs/clients.md
    "factory": "models.reference:linear",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 16]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
    "resources": {"cpus": 0},
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("operations")
    (folder / "fragile.py").write_text(FRAGILE)
    fragile = {**NOOP, "name": "fragile", "factory": "fragile:fragile", "options": {"flag": str(folder / "flag")}}
    yield from started(settings_file(folder, NOOP, SLOW, fragile, LINEAR, shared_memory=True, model_control=True))


@pytest.fixture
def flag(cluster: Cluster) -> Iterator[Path]:
    path = Path(cluster.folder, "flag")
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture(params=["http", "grpc"])
def wire(request: pytest.FixtureRequest, cluster: Cluster):
    return over_http if request.param == "http" else over_grpc


@pytest.fixture
def triton(wire) -> Iterator[object]:
    port = PORT if wire is over_http else GRPC_PORT
    with wire.InferenceServerClient(f"127.0.0.1:{port}") as connected:
        yield connected


def inputs(wire, value: float = 1.0) -> list[object]:
    x = wire.InferInput("x", [1, 1024], "FP32")
    return [x.set_data_from_numpy(np.full((1, 1024), value, np.float32))]


def states(triton) -> dict[str, tuple[str, str]]:
    index = triton.get_model_repository_index()
    if isinstance(index, list):
        return {entry["name"]: (entry["state"], entry["reason"]) for entry in index}
    return {entry.name: (entry.state, entry.reason) for entry in index.models}


def count(statistics, model: str) -> int:
    if isinstance(statistics, dict):
        found = {entry["name"]: entry["inference_count"] for entry in statistics["model_stats"]}
    else:
        found = {entry.name: entry.inference_count for entry in statistics.model_stats}
    return int(found[model])


def processes(model: str) -> list[int]:
    """Returns the process ids of the model's replicas."""
    found = []
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError):  # it has ended
            if f":{model}:" in Path(f"/proc/{pid}/cmdline").read_text():
                found.append(pid)
    return found


def test_statistics_are_those_of_all_replicas_whoever_is_asked(triton, wire) -> None:
    before = count(triton.get_inference_statistics("slow"), "slow")
    for _ in range(12):  # with two replicas, neither answers all requests
        triton.infer("slow", inputs(wire))
    for _ in range(4):
        assert count(triton.get_inference_statistics("slow"), "slow") == before + 12
        assert count(triton.get_inference_statistics(), "slow") == before + 12


def test_every_replica_finds_what_was_registered(triton, wire) -> None:
    key = f"/headway_test_{uuid4().hex}"
    handle = shm.create_shared_memory_region("r", key, 8192)
    try:
        shm.set_shared_memory_region(handle, [np.full((1, 1024), 3, np.float32)])
        triton.register_system_shared_memory("r", key, 8192)
        x = wire.InferInput("x", [1, 1024], "FP32")
        x.set_shared_memory("r", 4096)
        y = wire.InferRequestedOutput("y")
        y.set_shared_memory("r", 4096, 4096)
        for _ in range(12):
            triton.infer("slow", [x], outputs=[y])
            assert np.array_equal(shm.get_contents_as_numpy(handle, np.float32, (1024,), offset=4096), np.full(1024, 3))
            shm.set_shared_memory_region(handle, [np.zeros(1024, np.float32)], offset=4096)
        triton.unregister_system_shared_memory()
        for _ in range(6):
            with pytest.raises(InferenceServerException, match="Unable to find"):
                triton.infer("slow", [x])
    finally:
        shm.destroy_shared_memory_region(handle)


def test_a_model_is_unloaded_with_its_processes_and_loaded_again(triton, wire) -> None:
    assert states(triton)["noop"] == ("READY", "")
    assert processes("noop")
    triton.unload_model("noop")
    assert states(triton)["noop"] == ("UNAVAILABLE", "unloaded")
    eventually(lambda: processes("noop"), lambda found: not found)
    assert not triton.is_model_ready("noop")
    assert triton.is_server_ready()
    with pytest.raises(InferenceServerException, match="unknown model: 'noop' has no available versions"):
        triton.infer("noop", inputs(wire))
    triton.unload_model("noop")  # a second time changes nothing
    triton.load_model("noop")
    assert triton.is_model_ready("noop")
    assert triton.infer("noop", inputs(wire)).as_numpy("y").shape == (1, 1)
    assert states(triton)["noop"] == ("READY", "")


def test_a_load_restarts_what_is_loaded_and_refuses_what_it_does_not_know(triton, wire) -> None:
    triton.load_model("noop")
    assert triton.infer("noop", inputs(wire)).as_numpy("y").shape == (1, 1)
    assert count(triton.get_inference_statistics("noop"), "noop") == 1  # of the new replica
    with pytest.raises(InferenceServerException, match="unknown model: 'nobody'"):
        triton.load_model("nobody")
    triton.unload_model("nobody")  # is unloaded already
    with pytest.raises(InferenceServerException, match=r"parameters\.config: a model is loaded as the server"):
        triton.load_model("noop", config=json.dumps({"max_batch_size": 4}))


def test_the_guides_example_runs_as_it_stands(cluster: Cluster) -> None:
    (code,) = NEEDS_RAY
    check_example(code, f"127.0.0.1:{PORT}", f"127.0.0.1:{GRPC_PORT}")


def test_a_load_that_fails_says_why(triton, wire, flag: Path) -> None:
    triton.unload_model("fragile")
    flag.touch()
    with pytest.raises(InferenceServerException, match=r"(?s)failed to load 'fragile'.*the weights are gone"):
        triton.load_model("fragile")
    assert states(triton)["fragile"][0] == "UNAVAILABLE"
    flag.unlink()
    triton.load_model("fragile")
    assert triton.is_model_ready("fragile")


def test_log_settings_change_in_every_replica_and_those_without_effect_are_rejected(triton, wire) -> None:
    def setting(told, name: str) -> object:
        if isinstance(told, dict):
            return told[name]
        value = told.settings[name]
        return getattr(value, value.WhichOneof("parameter_choice"))

    assert setting(triton.get_log_settings(), "log_info") is True
    triton.update_log_settings({"log_info": False, "log_verbose_level": 1})
    for _ in range(3):
        told = triton.get_log_settings()
        assert (setting(told, "log_info"), setting(told, "log_verbose_level")) == (False, 1)
    triton.update_log_settings({"log_info": True, "log_verbose_level": 0})
    with pytest.raises(
        InferenceServerException, match="log_file: is '' on this server, and nothing else has an effect"
    ):
        triton.update_log_settings({"log_file": "x.log"})


def test_without_an_endpoint_nothing_is_traced_and_that_cannot_be_changed(triton, wire) -> None:
    for model in ("", "slow"):
        told = triton.get_trace_settings(model)
        level = told["trace_level"] if isinstance(told, dict) else list(told.settings["trace_level"].value)
        assert level == ["OFF"]
        with pytest.raises(InferenceServerException, match=r"server\.trace_endpoint"):
            triton.update_trace_settings(model, {"trace_rate": "1"})


def test_the_server_says_what_it_offers(cluster: Cluster) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/v2") as answer:
        extensions = json.load(answer)["extensions"]
    assert {"system_shared_memory", "model_repository", "logging", "trace"} <= set(extensions)
