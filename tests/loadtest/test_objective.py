"""Checking results against an objective file."""

import math
from pathlib import Path

import pytest

from loadtest.__main__ import main
from loadtest.objective import judge, quantile_ms, read
from loadtest.result import write_result
from loadtest.spec import BadSpec
from loadtest.tally import together
from tests.loadtest.results import refused, result, run, shot, steady

# 98 fast shots, one slow shot and one refused shot.
MIXED = run([*(shot(10 * n, 20, tenant="shop") for n in range(98)), shot(980, 400, tenant="shop"), refused(990, "bot")])


def written(folder: Path, text: str) -> Path:
    path = folder / "objective.toml"
    path.write_text(text)
    return path


def judged(folder: Path, text: str) -> list[bool]:
    return [verdict.is_kept for verdict in judge(read(written(folder, text)), result(MIXED))]


def test_limits_on_latency_are_upper_and_on_shares_and_rates_lower(tmp_path: Path) -> None:
    assert judged(tmp_path, "p50_ms = 21\np50_ms_ = 1".replace("\np50_ms_ = 1", "")) == [True]
    assert judged(tmp_path, "p50_ms = 19") == [False]
    assert judged(tmp_path, "answered_share = 0.99\nin_time_share = 0.99\ngoodput_per_s = 60") == [True, False, True]


def test_a_shot_without_an_answer_is_infinitely_late(tmp_path: Path) -> None:
    whole = together(MIXED.windows)
    assert quantile_ms(whole, 0.98) == pytest.approx(20, rel=0.01)
    assert quantile_ms(whole, 0.99) == pytest.approx(400, rel=0.01)
    assert quantile_ms(whole, 0.999) == math.inf
    assert judged(tmp_path, "p99_9_ms = 1000000") == [False]


def test_tenants_and_tasks_can_have_limits_of_their_own(tmp_path: Path) -> None:
    text = "[tenants.shop]\nanswered_share = 1\n[tenants.bot]\nanswered_share = 1\n[tasks.a]\np50_ms = 21"
    assert sorted(judged(tmp_path, text)) == [False, True, True]


def test_of_several_runs_the_median_is_judged(tmp_path: Path) -> None:
    limits = read(written(tmp_path, "p50_ms = 30"))
    runs = [steady(2, took_ms=took) for took in (10, 20, 500)]
    assert judge(limits, result(*runs))[0].is_kept


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p99 = 5", "p99: no such limit; there are p99_ms"),
        ("p99_ms = 'fast'", "p99_ms: expected a number"),
        ("[tenants.shop]\ngoodput_per_s = 5", r"tenants\.shop\.goodput_per_s: no such limit"),
        ("", "contains no limit"),
        ("p99_ms", "objective: "),
    ],
)
def test_a_mistake_in_an_objective_is_named_by_its_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadSpec, match=message):
        read(written(tmp_path, text))


def test_a_tenant_that_is_not_in_the_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSpec, match=r"tenants\.post: the result has no such name; it has shop, bot"):
        judged(tmp_path, "[tenants.post]\np99_ms = 5")


@pytest.mark.parametrize(("bound", "code"), [(30, 0), (10, 1)])
def test_check_sets_the_exit_status(tmp_path: Path, bound: int, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    write_result(tmp_path / "result.json", result(MIXED))
    objective = written(tmp_path, f"p50_ms = {bound}")
    assert main(["check", str(tmp_path / "result.json"), str(objective)]) == code
    assert f"wanted at most {bound}" in capsys.readouterr().out


def test_a_result_whose_generator_was_the_bottleneck_cannot_be_judged(tmp_path: Path) -> None:
    write_result(tmp_path / "result.json", result(run([shot(0, 20, late_ms=15)])))
    assert main(["check", str(tmp_path / "result.json"), str(written(tmp_path, "p50_ms = 100"))]) == 2
