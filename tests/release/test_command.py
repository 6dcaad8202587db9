"""Tests `headway release` against a server whose releases go on a few seconds at every look."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from serving.api.admission.local_gate import LocalGate
from serving.api.entry import ModelEntry
from serving.api.http.front import FrontApp
from serving.api.operations import Operations
from serving.cli import app
from serving.cluster.front.releases import FrontReleases
from serving.traffic.routes import SHARES
from tests.api.conftest import Server
from tests.release.counts import Judged, Traffic
from tests.release.front import Front
from tests.release.stories import S

FAST = ("--every", "0.05", "--soak", "5s", "--deadline", "10m", "--why", "a better model", "--by", "ann")
SECONDS = 10  # that pass at every look


class Going(FrontReleases):
    """Releases that go on while somebody looks. goes: whether they do."""

    front: Front
    goes = True

    async def told(self, model: str) -> dict[str, Any]:
        story, one = self.front.story, self.front.models[model]
        assert isinstance(story, Judged)
        for _ in range(SECONDS if self.goes else 0):
            await one.rollout.turn()
            story.traffic.share = one.log.route().share / SHARES
            story.clock.advance(S)
        return await super().told(model)


class Shop:
    """A running server. headway: calls a command of `headway release` about it."""

    def __init__(self, front: Front, releases: Going, url: str) -> None:
        self.front = front
        self.releases = releases
        self.url = url

    def headway(self, *words: str) -> Result:
        return CliRunner().invoke(app, ["release", *words, "--url", self.url])


@contextmanager
def shop(**traffic: float) -> Iterator[Shop]:
    story = Judged()
    story.with_traffic(Traffic(**{"error": 0.01} | traffic))  # type: ignore[arg-type]
    front = Front(story)

    async def hear(model: str) -> None:
        front.routed.append(model)

    releases = Going(["ranker"], front.models.__getitem__, calendar=story.clock, routed=hear)
    releases.front = front

    async def entries() -> list[ModelEntry]:
        return []

    operations = Operations(entries, gate=LocalGate(), releases=releases)
    server = Server(FrontApp(operations), http="httptools", loop="asyncio").open()
    try:
        yield Shop(front, releases, f"http://{server.address}")
    finally:
        server.close()


def test_a_good_version_is_promoted_with_exit_code_0_and_its_steps_are_printed() -> None:
    with shop() as one:
        result = one.headway("run", "ranker@v2", *FAST)
        assert result.exit_code == 0, result.output
        steps = [line for line in result.output.splitlines() if "  step " in line]
        assert [line.split("step ")[1].split(" %")[0] for line in steps] == ["5", "25", "50", "100"]
        assert "evidence that fewer than 5 % do" in result.output
        assert result.output.rstrip().endswith("PROMOTED: ranker@v2 answers all requests")
        again = one.headway("run", "ranker@v2", *FAST)
        assert again.exit_code == 0
        assert "ranker@v2 is stable already" in again.output


def test_a_bad_version_is_rolled_back_with_exit_code_3_and_the_reason() -> None:
    with shop(error=0.2) as one:
        result = one.headway("run", "ranker@2", *FAST)
        assert result.exit_code == 3, result.output
        assert "ROLLED BACK: v1 answers all requests." in result.output
        again = one.headway("run", "ranker@2", *FAST)
        assert again.exit_code == 3
        assert "Use --again to try once more" in again.output
        assert one.headway("status", "ranker").exit_code == 3


def test_a_release_that_nothing_decides_is_held_with_exit_code_4() -> None:
    with shop(per_look=0) as one:
        result = one.headway("run", "ranker@2", *FAST[:4], "--deadline", "30s")
        assert result.exit_code == 4, result.output
        assert "HELD at 5 %" in result.output
        assert "headway release resume ranker" in result.output


def test_a_command_that_was_killed_attaches_again() -> None:
    with shop() as one:
        one.releases.goes = False
        assert one.headway("run", "ranker@2", *FAST, "--no-follow").exit_code == 0
        one.releases.goes = True
        result = one.headway("run", "ranker@2", *FAST)
        assert result.exit_code == 0, result.output
        assert "attached to the release of ranker@v2, which ann began" in result.output
        assert sum(record.kind == "release_started" for record in one.front.models["ranker"].log.records) == 1


def test_hold_resume_and_abort_print_what_they_did() -> None:
    with shop() as one:
        one.releases.goes = False
        one.headway("run", "ranker@2", *FAST, "--no-follow")
        assert "held" in one.headway("hold", "ranker", "--why", "lunch").output
        assert one.headway("status", "ranker").exit_code == 4
        assert "resumed" in one.headway("resume", "ranker").output
        aborted = one.headway("abort", "ranker", "--why", "the wrong one")
        assert "ABORTED: v1 answers all requests. the wrong one" in aborted.output
        result = one.headway("abort", "ranker")
        assert result.exit_code == 1
        assert "no release of 'ranker' is running" in result.output


def test_json_is_one_line_for_each_change_and_ends_with_the_outcome() -> None:
    with shop() as one:
        lines = one.headway("run", "ranker@2", *FAST, "--json").stdout.splitlines()
        assert json.loads(lines[-1])["release"]["phase"] == "promoted"
        assert all(json.loads(line)["model"] == "ranker" for line in lines)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["run", "ranker"], "MODEL@VERSION"),
        (["run", "ranker@2", "--steps", "5,25"], "--steps: the last one must be all requests"),
        (["run", "ranker@2", "--steps", "25,5,100"], "--steps: each must be larger"),
        (["run", "ranker@2", "--soak", "soon"], "--soak: write a number with its unit"),
        (["run", "ranker@2", "--errors", "few"], "--errors: write a percentage"),
    ],
)
def test_mistakes_in_the_command_line_have_exit_code_2(words: list[str], text: str) -> None:
    result = CliRunner().invoke(app, ["release", *words])
    assert result.exit_code == 2
    assert text in result.output


def test_a_server_that_is_not_there_is_told() -> None:
    result = CliRunner().invoke(app, ["release", "status", "ranker", "--url", "http://127.0.0.1:9"])
    assert result.exit_code == 1
    assert "does not answer" in result.output
