"""Tests two versions of a model on a real Ray: their paths, a change of the route under load, and one more version that
is deployed at run time."""

import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serving.cli import app
from serving.names import model_path
from serving.operate.launch import Cluster
from tests.cluster.conftest import GRPC_PORT, PORT, settings_file, started
from tests.cluster.two_versions import Client, over_grpc
from tests.patience import eventually

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(240)]
URL = f"http://127.0.0.1:{PORT}"
NOOP = {
    "name": "ranker",
    "factory": "models.reference:noop",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
    "resources": {"cpus": 0.1},
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("versions")
    versions = [{**NOOP, "version": "1"}, {**NOOP, "version": "2", "replicas": 2}]
    yield from started(settings_file(folder, *versions, state=str(folder / "state")))


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client]:
    client = Client(PORT)
    yield client
    client.close()


def route(*arguments: str) -> str:
    """Runs `headway route` and returns what it prints."""
    done = CliRunner().invoke(app, ["route", *arguments, "--url", URL])
    assert done.exit_code == 0, done.output
    return done.stdout


class Load(threading.Thread):
    """Sends requests without a version, one after another, until `end`. answers: (status, version) of each."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[tuple[int, str]] = []
        self._end = threading.Event()
        self.start()

    def run(self) -> None:
        client = Client(PORT)
        while not self._end.is_set():
            status, answer = client.ask()
            self.answers.append((status, str(answer.get("model_version"))))
        client.close()

    def end(self) -> list[tuple[int, str]]:
        self._end.set()
        self.join(30)
        return self.answers


def test_each_version_has_its_path_on_both_wires_and_the_first_answers_the_others(client: Client) -> None:
    for version in ("1", "2"):
        assert client.ask(f"{model_path('ranker')}/versions/{version}/infer")[1]["model_version"] == version
        assert over_grpc(GRPC_PORT, version) == version
    assert (client.version(), over_grpc(GRPC_PORT)) == ("1", "1")
    index = client.ask("/v2/repository/index", body="{}")[1]
    assert [(one["name"], one["version"], one["state"]) for one in index] == [
        ("ranker", "1", "READY"), ("ranker", "2", "READY")
    ]  # fmt: skip


def test_a_changed_route_moves_all_requests_and_loses_none(client: Client) -> None:
    load = [Load() for _ in range(2)]
    for version in ("2", "1", "2"):
        assert f"version {version} answers all requests" in route("set", "ranker", f"stable={version}")
        eventually(client.version, lambda found, wanted=version: found == wanted)
        assert {client.version() for _ in range(50)} == {version}
        eventually(partial(over_grpc, GRPC_PORT), lambda found, wanted=version: found == wanted)
    answers = [answer for one in load for answer in one.end()]
    assert {status for status, _ in answers} == {200}
    changes = sum(before != after for one in load for before, after in zip(one.answers, one.answers[1:], strict=False))
    assert changes <= 6, "no request after a change is answered by the version before"


def test_a_share_is_set_by_hand_and_shown(client: Client) -> None:
    route("set", "ranker", "stable=1", "candidate=2", "share=50%", "--why", "a try")
    shown = json.loads(route("show", "ranker", "--json"))
    assert (shown["stable"], shown["candidate"], shown["share"]) == ("1", "2", 5000)
    eventually(lambda: {client.version(x_routing_key=str(key)) for key in range(40)}, lambda found: len(found) == 2)
    refused = CliRunner().invoke(app, ["route", "set", "ranker", "stable=7", "--url", URL])
    assert (refused.exit_code, "has no version '7'" in refused.output) == (1, True)


def test_a_front_that_was_killed_goes_on_with_the_log(cluster: Cluster, client: Client) -> None:
    import ray

    route("set", "ranker", "stable=2", "candidate=")
    eventually(client.version, lambda found: found == "2")
    before = json.loads(client.get("/debug/state"))["front"]["pid"]
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if "SERVE_REPLICA::front#" in actor["name"]:
            ray.kill(ray.get_actor(actor["name"], namespace=actor["namespace"]), no_restart=True)
    assert {client.version() for _ in range(50)} == {"2"}, "models answer as before"
    eventually(lambda: front_pid(client), lambda pid: pid not in (0, before), patience_s=60)
    assert json.loads(route("show", "ranker", "--json"))["stable"] == "2"
    assert {client.version() for _ in range(50)} == {"2"}
    log = Path(cluster.folder, "state", "registry", "models", "ranker", "log")
    assert len(list(log.glob("*.json"))) == 5


def front_pid(client: Client) -> int:
    try:
        return int(json.loads(client.get("/debug/state"))["front"]["pid"])
    except (OSError, ValueError, KeyError):
        return 0
