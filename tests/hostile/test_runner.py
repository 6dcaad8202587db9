"""Tests the verdicts and the report of the command."""

from collections import Counter
from typing import Any

import pytest

from tests.hostile.__main__ import main, options
from tests.hostile.bystanders import Seen, clients
from tests.hostile.inputs import MIB, Answer, words
from tests.hostile.runner import Report, Result, bounds, judge, judge_answer, memory_table, stalls

RIGHT = Counter(dict.fromkeys(clients(), 2))


def memory(after: float = 105.0, peak: float = 120.0) -> dict[str, dict[str, float]]:
    """Returns `memory_mib` for two processes. after: of one of them."""
    return {
        "all together": {"before": 200.0, "peak": 100.0 + peak, "after": 100.0 + after},
        "front": {"before": 100.0, "after": 100.0},
        "numbers": {"before": 100.0, "after": after},
    }


def report(**changes: Any) -> Report:
    """Returns the report of a kind without failures, with these changes."""
    made = Report("frames", memory_mib=memory(), bystanders=Seen(RIGHT))
    for name, value in changes.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("changes", "balances", "said"),
    [
        ({}, ["good"], ""),
        ({"memory_mib": memory(after=111)}, ["good"], "memory of numbers: 100 MiB before, 111 MiB afterwards"),
        ({"memory_mib": memory(peak=400)}, ["good"], "500 MiB meanwhile"),
        ({"memory_mib": memory(peak=400), "kind": "bodies"}, ["good"], ""),
        ({"afterwards_own_stall_ms": 101.0}, ["good"], "afterwards the event loop stood still for 101 ms"),
        ({}, ["good", "one request was never ended"], "never ended"),
        ({"bystanders": Seen(RIGHT, Counter({"numbers over grpc: 503": 1}))}, ["good"], "numbers over grpc: 503"),
        (
            {"bystanders": Seen(Counter({one: 2 for one in RIGHT if one != "texts over http"}))},
            ["good"],
            "without any answer: ['texts over http']",
        ),
    ],
)
def test_a_kind_is_judged_by_memory_stalls_ledgers_and_bystanders(changes: Any, balances: list[str], said: str) -> None:
    judged = report(**changes)
    judge(judged, balances)
    assert bool(judged.failures) == bool(said)
    assert said in "".join(judged.failures)


def test_memory_is_reported_for_each_process_and_for_all() -> None:
    before, after = {"numbers": 100 * MIB, "front": 50 * MIB}, {"numbers": 90 * MIB, "front": 55 * MIB}
    assert bounds(before) == {"numbers": 110 * MIB, "front": 55 * MIB}
    assert memory_table(before, after, 300 * MIB) == {
        "all together": {"before": 150, "peak": 300, "after": 145},
        "front": {"before": 50, "after": 55},
        "numbers": {"before": 100, "after": 90},
    }


def test_an_answer_that_nobody_expected_is_a_failure_of_its_input() -> None:
    result = Result("an input", Answer("500 unexplained", "internal error"), 0.1)
    judge_answer(result, words("400", "413"))
    judged = report(inputs=[result, Result("another", Answer("400"), 0.1)])
    assert judged.all_failures() == ["an input: 500 unexplained: 'internal error', not one of 400, 413"]


def test_the_longest_stall_of_any_replica_counts() -> None:
    loops = [
        {"longest_stall_ms": 5.0, "longest_own_stall_ms": 4.0},
        {"longest_stall_ms": 9.0, "longest_own_stall_ms": 1.0},
    ]
    assert stalls([{"loop": loop} for loop in loops]) == (9.0, 4.0)


def test_kinds_are_chosen_by_name_and_unknown_ones_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert options(["--only", "heads", "--only", "settings"]).only == ["heads", "settings"]
    for arguments, code in ((["--help"], 0), (["--only", "nothing"], 2)):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == code
    assert "artefacts" in capsys.readouterr().out
