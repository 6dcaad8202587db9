"""Tests that quota and use of the control groups reach the pauses, with files like those of the kernel."""

import asyncio
from pathlib import Path

import pytest

from models.cores import ControlGroup, CpuLimit, control_groups
from serving.core.pace import Pace
from serving.runtime import pacing
from serving.runtime.engine import Engine
from serving.runtime.pacing import LOOK_EVERY_NS, READ_EVERY_NS, Pacer
from serving.testing.models import ScriptedModel

MS = 1_000_000
BUDGET_NS = 50 * MS


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "affine_cores", lambda: 2)


class Container:
    """The files of a container's control group, version 2."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.limit("max 100000")
        self.use(0)

    def limit(self, text: str) -> None:
        (self.root / "cpu.max").write_text(f"{text}\n")

    def use(self, ms: int) -> None:
        (self.root / "cpu.stat").write_text(f"usage_usec {ms * 1000}\nuser_usec 0\nsystem_usec 0\n")

    def groups(self) -> list[ControlGroup]:
        return list(control_groups(self.root, self.root / "none"))


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path)


def test_the_use_is_read_every_few_milliseconds_while_the_quota_needs_pauses(container: Container) -> None:
    container.limit("50000 100000")
    pace = Pace(BUDGET_NS)
    pacer = Pacer(pace, container.groups())
    pacer.follow(MS)
    pace.batch_began(MS)
    container.use(10)
    pacer.follow(MS + READ_EVERY_NS - 1)
    assert pace.ready_ns <= MS
    pacer.follow(MS + READ_EVERY_NS)
    assert pace.ready_ns > MS + READ_EVERY_NS


def test_a_quota_that_is_set_or_lifted_later_is_noticed_within_a_second(container: Container) -> None:
    pace = Pace(BUDGET_NS)
    pacer = Pacer(pace, container.groups())
    pacer.follow(0)
    assert not pace.is_limited
    container.limit("50000 100000")
    pacer.follow(LOOK_EVERY_NS)
    assert pace.is_limited
    container.limit("max 100000")
    pacer.follow(2 * LOOK_EVERY_NS)
    assert not pace.is_limited


def test_a_group_whose_use_is_not_told_makes_no_pauses(container: Container) -> None:
    container.limit("50000 100000")
    (container.root / "cpu.stat").unlink()
    pace = Pace(BUDGET_NS)
    Pacer(pace, container.groups()).follow(0)
    assert not pace.is_limited


def test_a_group_that_vanishes_while_it_is_read_ends_the_pauses(container: Container) -> None:
    container.limit("50000 100000")
    pace = Pace(BUDGET_NS)
    pacer = Pacer(pace, container.groups())
    pacer.follow(0)
    (container.root / "cpu.stat").unlink()
    pacer.follow(READ_EVERY_NS)
    assert not pace.is_limited


class HalfACore(ControlGroup):
    """A control group without files."""

    def limit(self) -> CpuLimit:
        return CpuLimit(50 * MS, 100 * MS)

    def used_ns(self) -> int:
        return 0


def test_an_engine_reports_at_its_start_that_it_spaces_batches() -> None:
    lines: list[str] = []

    async def start() -> None:
        groups = [HalfACore([], Path())]
        async with Engine([ScriptedModel(latency_budget_ms=50)], groups=groups, report=lines.append) as engine:
            assert engine.batcher.pace.is_limited

    asyncio.run(start())
    assert any("CPU quota of 0.5 cores" in line for line in lines)
