"""The clocks, each beside the operating system's own."""

import time
from pathlib import Path

import pytest

from serving.core.clock import SCHEDULING, RunningClock

FAR_NS = 1_000_000_000_000_000


def test_the_running_clock_stands_while_the_thread_waits_for_a_core(tmp_path: Path) -> None:
    scheduling = tmp_path / "schedstat"
    clock = RunningClock(scheduling)
    scheduling.write_text("700 0 3\n")
    before_ns = clock.now_ns()
    scheduling.write_text(f"900 {FAR_NS} 4\n")
    assert clock.now_ns() < before_ns


def test_a_wait_between_its_two_readings_makes_the_running_clock_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    waits_ns = iter([0, FAR_NS, FAR_NS])
    clock = RunningClock()
    monkeypatch.setattr(clock, "_waited_ns", lambda: next(waits_ns))
    before_ns = time.monotonic_ns()
    assert before_ns <= clock.now_ns() + FAR_NS <= time.monotonic_ns()
    assert list(waits_ns) == []


@pytest.mark.parametrize("content", [None, "", "12", "a b c"])
def test_where_the_wait_is_not_told_the_running_clock_is_the_systems(tmp_path: Path, content: str | None) -> None:
    scheduling = tmp_path / "schedstat"
    if content is not None:
        scheduling.write_text(content)
    before_ns = time.monotonic_ns()
    assert before_ns <= RunningClock(scheduling).now_ns() <= time.monotonic_ns()


@pytest.mark.skipif(not SCHEDULING.exists(), reason="needs Linux with scheduling statistics")
def test_the_running_clock_of_this_system_never_goes_back() -> None:
    clock = RunningClock()
    seen = [clock.now_ns() for _ in range(1000)]
    assert seen == sorted(seen)
