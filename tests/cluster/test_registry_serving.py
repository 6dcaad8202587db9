"""Serves a version of the registry on a real Ray: its files, its signature and its labels reach the clients."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest
import yaml

from serving.operate.launch import Cluster
from serving.registry.changes import approval
from serving.registry.log import ModelLog
from serving.store.files import open_files
from tests.cluster.conftest import GRPC_PORT, PORT, started
from tests.registry.artifacts import artifact, pushed
from tests.registry.stories import author

pytestmark = [pytest.mark.ray, pytest.mark.chaos]  # `test_releasing.py` serves versions of the registry in CI


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("registry")
    store = open_files(str(folder / "versions"))
    pushed(store, artifact(folder / "ranker"))
    asyncio.run(ModelLog(store, "ranker").append(approval(author("user:ben"), "v1")))
    settings = {
        "server": {"http_port": PORT, "grpc_port": GRPC_PORT},
        "registry": {"place": "./versions"},
        "models": [{"name": "ranker", "factory": "registry:ranker", "resources": {"cpus": 0.1}}],
    }
    (folder / "headway.yaml").write_text(yaml.safe_dump(settings))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HEADWAY_CACHE", str(folder / "cache"))
        yield from started(folder / "headway.yaml")
        assert len(list(folder.glob("cache/registry/ranker/*/files/net.py"))) == 1


def test_a_version_of_the_registry_answers_with_its_number_and_its_labels(serving: Cluster) -> None:
    url = f"{serving.url()}/v2/models/ranker"
    told = httpx.get(url).json()
    assert (told["versions"], told["inputs"][0]["shape"]) == (["1"], [-1, 2])
    rows = [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]
    answer = httpx.post(f"{url}/infer", json={"inputs": rows}).json()
    assert (answer["model_version"], answer["outputs"][0]["data"]) == ("1", [3.0, 6.0])
    best = [{"name": "y", "parameters": {"classification": 1}}]
    labelled = httpx.post(f"{url}/infer", json={"inputs": rows, "outputs": best}).json()
    assert labelled["outputs"][0]["data"][0].endswith(":1:dog")
