"""Releases under load while what drives them is killed, and versions that are slow or answer nonsense."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from serving.cli import app
from serving.operate.launch import Cluster
from serving.operate.processes import descendants
from tests.cluster.releasing import FAILING, GOOD, SLOW, URL, Load, front_pid, kill, route, serving
from tests.patience import eventually

pytestmark = [
    pytest.mark.ray,
    pytest.mark.chaos,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(600),
]
FAST = ("--soak", "3s", "--deadline", "120s", "--every", "0.5", "--url", URL, "--by", "ann")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    yield from serving(tmp_path_factory.mktemp("releasing"), GOOD, SLOW, FAILING, GOOD, GOOD)


def run(version: str, *more: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["release", "run", f"ranker@v{version}", *FAST, *more])
    return result.exit_code, result.output


def begin(version: str) -> None:
    code, output = run(version, "--no-follow")
    assert code == 0, output


def share_is(share: int) -> bool:
    try:
        return route()["share"] == share
    except (httpx.HTTPError, KeyError, ValueError):
        return False  # the front is being started again


def shares_in_log(cluster: Cluster, version: str) -> list[int]:
    events = httpx.get(f"{URL}/v2/models/ranker/release").json()["release"]["events"]
    return [event["share"] for event in events if event["kind"] == "step"]


def test_the_front_and_the_command_are_killed_in_every_step_and_the_release_goes_on(cluster: Cluster) -> None:
    with Load() as load:
        begin("2")
        for share in (500, 2500, 5000, 10_000):
            eventually(lambda share=share: share_is(share), patience_s=120)  # type: ignore[misc]
            words = [sys.executable, "-m", "serving", "release", "run", "ranker@v2", *FAST]
            command = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            kill(front_pid())
            command.kill()
            command.wait()
        code, output = run("2")
    assert code == 0, output
    assert shares_in_log(cluster, "2") == [500, 2500, 5000, 10_000]
    assert route() == {"stable": "2", "candidate": None, "share": 0}
    assert load.failures == []
    assert set(load.answers) == {(200, "1"), (200, "2")}


def test_haproxy_is_killed_and_comes_back_with_the_share_of_the_log(cluster: Cluster) -> None:
    stable = str(route()["stable"])
    with Load() as load:
        begin("5")
        eventually(lambda: share_is(2500), patience_s=120)
        before = load.answers[200, "5"]
        for pid in haproxies():
            kill(pid)
        eventually(lambda: share_is(2500) or share_is(5000), patience_s=60)
        code, output = run("5")
    assert code == 0, output
    assert load.answers[200, "5"] > before
    assert shares_in_log(cluster, "5") == [500, 2500, 5000, 10_000]
    assert {number for _, number in load.answers} <= {stable, "5", "?"}


def haproxies() -> list[int]:
    found = descendants(os.getpid())
    return [pid for pid in found if Path(f"/proc/{pid}/comm").read_text().strip().startswith("haproxy")]


def test_a_version_that_is_three_times_as_slow_is_rolled_back(cluster: Cluster) -> None:
    with Load():
        code, output = run("3")
    assert code == 3, output
    assert "p95" in output


def test_a_version_that_answers_nonsense_is_rolled_back_by_what_clients_send_back(cluster: Cluster) -> None:
    stable = str(route()["stable"])

    class Telling(Load):
        """A load that says of every answer how good it was: those of version 6 are worth little."""

        def told(self, client: httpx.Client, answer: httpx.Response) -> None:
            body = answer.json()
            value = 0.2 if body.get("model_version") == "6" else 0.8
            client.post("/v2/models/ranker/feedback", json={"id": answer.headers["x-request-id"], "value": value})

    with Telling():
        code, output = run("6", "--business", "0.05")
    assert code == 3, output
    assert route()["stable"] == stable
