"""Shots in, numbers and words out."""

import json
from pathlib import Path

import pytest

from loadtest.report import quantile, summarise, text, warnings
from loadtest.shot import Shot, read_shots, write_shots

MS = 1_000_000


def answered(planned_ms: int, took_ms: int, late_ms: int = 0, status: int = 200) -> Shot:
    sent, done = (planned_ms + late_ms) * MS, (planned_ms + late_ms + took_ms) * MS
    return Shot(planned_ms * MS, sent, done - MS, done, status, None if status < 400 else "overloaded")


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
            Shot(2 * MS, error="not sent: all 1 connections busy"),
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


def test_a_run_without_any_answer_has_no_quantiles_and_can_still_be_shown() -> None:
    summary = summarise([Shot(0, error="not sent: connection refused")])
    assert summary.from_planned_ms == {}
    assert "1  not sent: connection refused" in text(summary)
    assert text(summarise([]))


def test_a_generator_that_was_too_slow_says_so() -> None:
    assert warnings(summarise([answered(0, 1, late_ms=6)])) == [
        "1 % of the shots left 6.0 ms late or more; this machine is too busy for the rate"
    ]
    assert warnings(summarise([answered(0, 1, late_ms=1)])) == []


def test_shots_that_were_not_sent_are_a_warning() -> None:
    assert warnings(summarise([Shot(0, error="not sent: all 1 connections busy")])) == [
        "1 shots were not sent; the load was lower than asked for"
    ]


def test_a_summary_can_be_written_as_json() -> None:
    summary = summarise([answered(0, 5)])
    assert json.loads(json.dumps(summary.as_json()))["from_planned_ms"]["p99"] == 5.0


def test_shots_survive_being_written_as_lines_and_read_again(tmp_path: Path) -> None:
    shots = [answered(0, 5), Shot(7, error="connection lost: reset")]
    write_shots(tmp_path / "shots.jsonl", shots)
    assert len((tmp_path / "shots.jsonl").read_text().splitlines()) == 2
    assert read_shots(tmp_path / "shots.jsonl") == shots
