"""The versions that the front serves: those of the settings, those that it finds, and those that come and go."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from serving.api.entry import ModelEntry
from serving.api.faults import CallFailed, Fault
from serving.cluster.front.versions import BY_MANIFEST, Versions
from serving.config import ModelSettings, Settings
from serving.traffic.routes import Route

TENSOR = [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
MODEL = {"factory": "models.reference:noop", "inputs": TENSOR, "outputs": TENSOR}
SETTINGS = Settings.model_validate({"models": [{"name": "ranker", **MODEL}, {"name": "alone", **MODEL}]})
ENTRIES = [ModelEntry(name="ranker", version="1"), ModelEntry(name="alone", version="1")]


class Serve:
    """Ray Serve as far as versions need it, which writes down what it is asked. there: applications and their states.
    error: why an application does not come up."""

    def __init__(self, error: str = "", **there: str) -> None:
        self.there = dict(there)
        self.said: list[str] = []
        self._error = error

    def status(self) -> SimpleNamespace:
        return SimpleNamespace(applications={name: SimpleNamespace(status=state) for name, state in self.there.items()})

    def delete(self, application: str) -> None:
        self.said.append(f"delete {application}")

    def control(self, settings: Settings) -> "Serve":
        assert "ranker@2" in settings.applications()
        return self

    async def bring_up(self, application: str) -> None:
        self.said.append(f"deploy {application}")
        if self._error:
            raise CallFailed(Fault(500, self._error))

    async def until_up(self, application: str) -> None:
        self.said.append(f"wait for {application}")


def run(story: Callable[[Versions], Awaitable[None]], there: Serve, *, by_manifest: bool = False) -> list[object]:
    """Returns what was served after each change."""
    changes: list[object] = []

    def changed(versions: Versions) -> None:
        changes.append({model: list(found) for model, found in versions.served().items()})

    async def told() -> None:
        control = None if by_manifest else there.control
        made: Any = Versions(
            SETTINGS, list(ENTRIES), control=control, changed=changed, status=there.status, delete=there.delete
        )
        await story(made)

    asyncio.run(told())
    return changes


def version(number: str) -> ModelSettings:
    return ModelSettings.model_validate({"name": "ranker", "version": number, **MODEL})


def test_a_version_that_is_added_is_served_when_it_answers() -> None:
    there = Serve(ranker="RUNNING")

    async def story(versions: Versions) -> None:
        assert await versions.add(version("2")) == "ranker@2"
        assert versions.served()["ranker"] == {"1": "ranker", "2": "ranker@2"}

    assert run(story, there) == [{"ranker": ["1", "2"], "alone": ["1"]}]
    assert there.said == ["deploy ranker@2"]


def test_one_that_is_there_already_is_only_waited_for() -> None:
    there = Serve(**{"ranker@2": "DEPLOYING"})

    async def story(versions: Versions) -> None:
        await versions.add(version("2"))

    run(story, there)
    assert there.said == ["wait for ranker@2"]


def test_one_that_does_not_start_is_not_served() -> None:
    async def story(versions: Versions) -> None:
        with pytest.raises(CallFailed, match="the weights are gone"):
            await versions.add(version("2"))

    assert run(story, Serve("the weights are gone")) == []


def test_a_front_that_was_restarted_finds_what_it_had_added() -> None:
    async def story(versions: Versions) -> None:
        await versions.find()

    there = Serve(**dict.fromkeys(("front", "ranker", "ranker@2", "alone", "other@3", "other"), "RUNNING"))
    assert run(story, there) == [{"ranker": ["1", "2"], "alone": ["1"]}]


def test_only_a_version_without_traffic_is_removed() -> None:
    there = Serve(**{"ranker@2": "RUNNING"})
    served = {"1": "ranker", "2": "ranker@2"}

    async def story(versions: Versions) -> None:
        await versions.find()
        for route in (Route("ranker", served, "2"), Route("ranker", served, "1", "2", 1)):
            with pytest.raises(CallFailed, match="version 2 of ranker still answers requests"):
                await versions.remove(route, "2")
        await versions.remove(Route("ranker", served, "1", "2", 0), "2")

    assert run(story, there)[-1] == {"ranker": ["1"], "alone": ["1"]}
    assert there.said == ["delete ranker@2"]


def test_where_applications_come_from_a_manifest_the_front_adds_none() -> None:
    async def story(versions: Versions) -> None:
        with pytest.raises(CallFailed, match="come from a manifest"):
            await versions.add(version("2"))

    run(story, Serve(), by_manifest=True)
    assert "settings" in BY_MANIFEST
