"""Summaries of shots, and their text."""

import json
from pathlib import Path

import pytest

from loadtest.report import group_text, quantile, summarise, text
from loadtest.shot import Shot, read_shots, write_shots
from loadtest.tally import Tally, kind_of, together, windows

MS = 1_000_000


def answered(planned_ms: int, took_ms: int, late_ms: int = 0, status: int = 200, **more: object) -> Shot:
    sent, done = (planned_ms + late_ms) * MS, (planned_ms + late_ms + took_ms) * MS
    return Shot(planned_ms * MS, sent, done - MS, done, status, None if status < 400 else "overloaded", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 50), (0.99, 99), (0.991, 100), (1.0, 100)])
def test_a_quantile_is_the_value_of_the_nearest_rank(share: float, value: int) -> None:
    assert quantile(range(1, 101), share) == value


def test_latency_counts_from_the_planned_instant_and_separately_from_the_sent_one() -> None:
    summary = summarise([answered(planned_ms=10, took_ms=5, late_ms=30)])
    assert summary.from_planned_ms["p50"] == 35.0
    assert summary.from_sent_ms["p50"] == 5.0
    assert summary.lateness_ms["max"] == 30.0
    assert summary.first_byte_ms["max"] == 4.0


def test_every_planned_shot_is_counted_once() -> None:
    summary = summarise(
        [
            answered(0, 5),
            answered(1, 1, status=503),
            Shot(2 * MS, error="not sent: 1 already in flight"),
            Shot(3 * MS, 3 * MS, error="timed out"),
        ]
    )
    assert (summary.planned, summary.sent, summary.not_sent, summary.answered) == (4, 3, 1, 1)
    assert summary.by_status == {"200": 1, "503": 1}
    assert sum(summary.errors.values()) == summary.planned - summary.answered


def test_a_quick_refusal_does_not_flatter_the_latency() -> None:
    shots = [answered(0, 40), *(answered(1, 1, status=503) for _ in range(99))]
    assert summarise(shots).from_planned_ms["p50"] == 40.0


def test_throughput_is_of_answers_from_the_first_planned_to_the_last_done() -> None:
    summary = summarise([answered(0, 1), answered(100, 100)])
    assert summary.duration_s == 0.2
    assert summary.throughput_per_s == 10.0


def test_goodput_counts_what_came_by_its_own_deadline_or_else_by_the_objective() -> None:
    shots = [
        answered(0, 30),
        answered(10, 60),
        answered(20, 60, deadline_ns=80 * MS),
        answered(30, 30, deadline_ns=10 * MS),
        answered(40, 20, late_ms=40),  # counted from planned: the client waited 60 ms
    ]
    assert summarise(shots, within_ns=50 * MS).in_time == 2
    assert summarise(shots).in_time == 4


def test_a_run_without_any_answer_has_no_quantiles_and_can_still_be_shown() -> None:
    summary = summarise([Shot(0, error="not sent: connection refused")])
    assert summary.from_planned_ms == {}
    assert "1  not sent: connection refused" in text(summary)
    assert text(summarise([]))


def test_errors_that_differ_only_in_their_numbers_are_counted_together() -> None:
    assert kind_of("the deadline passed after 12.5 ms") == kind_of("the deadline passed after 7 ms")


@pytest.mark.parametrize(
    ("took_ms", "late_ms", "is_told"), [(1, 6, True), (2, 1, True), (100, 6, True), (50, 1, False)]
)
def test_a_generator_that_was_late_beside_what_it_measures_says_so(took_ms: int, late_ms: int, is_told: bool) -> None:
    said = summarise([answered(0, took_ms, late_ms=late_ms)]).warnings
    assert any("the generator was the bottleneck" in warning for warning in said) is is_told


def test_a_generator_that_used_nearly_a_whole_core_says_so_in_an_open_loop() -> None:
    shots = [answered(0, 5)]
    assert "97% of a core" in summarise(shots, cpu_share=0.97).warnings[0]
    assert summarise(shots, cpu_share=0.97, open_loop=False).warnings == []


def test_shots_that_were_not_sent_are_a_warning() -> None:
    assert summarise([Shot(0, error="not sent: 1 already in flight")]).warnings == [
        "1 shots were not sent; the load was lower than planned"
    ]


def test_a_summary_can_be_written_as_json() -> None:
    summary = summarise([answered(0, 5)])
    assert json.loads(json.dumps(summary.as_json()))["from_planned_ms"]["p99"] == 5.0


def test_shots_survive_being_written_as_lines_and_read_again(tmp_path: Path) -> None:
    shots = [answered(0, 5, tenant="shop"), Shot(7, error="connection lost: reset")]
    write_shots(tmp_path / "shots.jsonl", shots)
    assert len((tmp_path / "shots.jsonl").read_text().splitlines()) == 2
    assert read_shots(tmp_path / "shots.jsonl") == shots


def test_windows_follow_the_planned_time_and_keep_the_gaps() -> None:
    found = windows([answered(100, 5), answered(2100, 5), answered(2200, 5)])
    assert [tally.planned for tally in found] == [1, 0, 2]


def test_the_parts_of_a_tally_added_up_are_the_whole_and_survive_json() -> None:
    shots = [answered(0, 5), answered(1, 1, status=503), Shot(2, error="timed out")]
    parts, whole = [Tally(), Tally()], Tally()
    for number, shot in enumerate(shots):
        parts[number % 2].add(shot)
        whole.add(shot)
    assert together(parts) == whole
    assert Tally.from_json(json.loads(json.dumps(whole.as_json()))) == whole


def test_tasks_are_shown_where_there_are_several() -> None:
    tally = windows([answered(0, 5)])[0]
    assert group_text("task", {"only": tally}) == ""
    assert "short" in group_text("task", {"short": tally, "long": tally})
