"""What the command judges, and how it tells."""

from collections import Counter
from typing import Any

import pytest

from tests.hostile.__main__ import main, options
from tests.hostile.bystanders import Seen
from tests.hostile.inputs import MIB, Answer, words
from tests.hostile.runner import Report, Told, judge, judge_answer, stalls


def report(**changes: Any) -> Report:
    """Of a kind with which all is well."""
    memory = {"before": 100.0, "peak": 120.0, "after": 105.0}
    made = Report("frames", memory_mib=memory, bystanders=Seen(right=10))
    for name, value in changes.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("changes", "balances", "said"),
    [
        ({}, ["good"], ""),
        ({"memory_mib": {"before": 100, "peak": 120, "after": 111}}, ["good"], "111 MiB afterwards"),
        ({"memory_mib": {"before": 100, "peak": 400, "after": 100}}, ["good"], "400 MiB meanwhile"),
        ({"memory_mib": {"before": 100, "peak": 400, "after": 100}, "kind": "bodies"}, ["good"], ""),
        ({}, ["good", "one request was never ended"], "never ended"),
        ({"bystanders": Seen(right=9, wrong=Counter({"numbers: 503": 1}))}, ["good"], "numbers: 503"),
        ({"bystanders": Seen()}, ["good"], "no bystander was answered"),
    ],
)
def test_a_kind_is_judged_by_memory_ledgers_and_bystanders(changes: Any, balances: list[str], said: str) -> None:
    judged = report(**changes)
    judge(judged, 110 * MIB, balances)
    assert bool(judged.failures) == bool(said)
    assert said in "".join(judged.failures)


def test_an_answer_that_nobody_expected_is_a_failure_of_its_input() -> None:
    told = Told("an input", Answer("500 unexplained", "internal error"), 0.1)
    judge_answer(told, words("400", "413"))
    judged = report(inputs=[told, Told("another", Answer("400"), 0.1)])
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
