"""Tests that the front saves the dashboard's history for the next front."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from serving.cluster.front.dashboard import Dashboard, pause_s
from serving.telemetry.snapshot import ClusterSnapshot
from tests.telemetry.snapshots import cluster, replica


async def look() -> ClusterSnapshot:
    return cluster(replica())


def dashboard(file: Path) -> Dashboard:
    return Dashboard(look, lambda model: [], file=file)


async def begun(file: Path) -> list[dict[str, Any]]:
    """Returns the points of a dashboard that has just begun."""
    begins = dashboard(file)
    await begins.begin()
    return begins.history.points("scorer")


def test_a_front_that_is_started_again_shows_what_the_one_before_saw(tmp_path: Path) -> None:
    file = tmp_path / "headway" / "history.json"

    async def story() -> None:
        assert await begun(file) == []
        before = dashboard(file)
        for _ in range(3):
            await before.look()
        await before.save()
        assert len(before.history.points("scorer")) == 2
        assert await begun(file) == before.history.points("scorer")
        assert [path.name for path in file.parent.iterdir()] == ["history.json"]

    asyncio.run(story())


def test_many_replicas_are_asked_less_often() -> None:
    assert [pause_s(replicas) for replicas in (0, 1, 15, 30, 60)] == [5, 5, 5, 10, 20]


def test_an_unreadable_history_is_logged_and_the_dashboard_begins_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "history.json"
    file.write_text("{")
    assert asyncio.run(begun(file)) == []
    assert "begins anew" in caplog.text
