"""One real Ray with Headway, started in this process, for all tests of this folder that use it."""

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from serving.cluster.environment import serves_grpc
from serving.cluster.haproxy.command import real_binary
from serving.cluster.probes import answers_over_grpc
from serving.cluster.registered import resolved
from serving.config import Settings, load_settings
from serving.operate.launch import Cluster

PORT = 18431
GRPC_PORT = 18433

MODEL = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 1024]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
    "resources": {"cpus": 0.1},
}
NOOP = {"name": "noop", "factory": "models.reference:noop", **MODEL}
SLOW = {
    "name": "slow",
    "factory": "models.reference:slow",
    "options": {"base_ms": 20, "per_row_ms": 1},
    "replicas": 2,
    **MODEL,
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1024]}],
}

WORDS = {
    "name": "words",
    "factory": "models.reference:Words",
    "decoupled": True,
    "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1, 1]}],
    "outputs": [{"name": "word", "datatype": "BYTES", "shape": [-1, 1]}],
    "resources": {"cpus": 0.1},
}
_NUMBER = {"datatype": "INT32", "shape": [-1, 1]}
ACCUMULATE = {
    "name": "accumulate",
    "factory": "models.reference:accumulate",
    "inputs": [{"name": "x", **_NUMBER}],
    "outputs": [{"name": "sum", **_NUMBER}],
    "state": [{"name": "total", **_NUMBER}],
    "resources": {"cpus": 0.1},
}


def settings_file(folder: Path, *models: Mapping[str, object], **server: object) -> Path:
    path = folder / "headway.yaml"
    path.write_text(
        yaml.safe_dump({"server": {"http_port": PORT, "grpc_port": GRPC_PORT, **server}, "models": list(models)})
    )
    return path


def started(path: Path) -> Iterator[Cluster]:
    """Starts a cluster, yields it, and stops it. Checks that it ends only its own processes."""
    settings: Settings = resolved(load_settings(path))
    said: list[str] = []
    cluster = Cluster(settings, path, said.append)
    bystander = subprocess.Popen(["sleep", "infinity"])
    try:
        cluster.start()
        assert cluster.wait_until_ready()
        if serves_grpc(settings):
            address = f"127.0.0.1:{settings.server.grpc_port}"
            for model in settings.models:
                assert model.scaling or answers_over_grpc(address, model.name, patience_s=30)
        yield cluster
    finally:
        cluster.stop()
        spared = bystander.poll() is None
        bystander.kill()
        bystander.wait()
        assert spared, "only what the cluster started ends with it"


def haproxy_binary() -> str:
    """Returns the path of HAProxy. Skips the test if there is none."""
    try:
        return real_binary()
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder where the cluster records its requests."""
    return tmp_path_factory.mktemp("recorded")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, recorded: Path) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    yield from started(settings_file(folder, NOOP, SLOW, WORDS, ACCUMULATE, record_folder=str(recorded)))
