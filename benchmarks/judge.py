"""Simulated releases: how often the judge of canaries rolls back, how soon, and how soon a healthy one goes on.

    python -m benchmarks.judge [--runs 4000] [--seed 1] [--only TEXT]

Each run is a release through the shares 5, 25, 50 and 100 %, with the default limits, judged every second (every five
seconds with little traffic). Beside it two rules that look at a minute at a time, in a first step of 30 minutes. Prints
a table in Markdown.
"""

import argparse
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.canary.judged import HELD, PROMOTED, ROLLED_BACK, run_releases
from benchmarks.canary.rules import CHECKS, failed_checks, first
from benchmarks.canary.traffic import Scenario, ticks
from serving.traffic.limits import Limits

SHARES = (0.05, 0.25, 0.5, 1.0)
MINUTES = 30  # that the rules look at
HEALTHY = ((0.01, 0.01), (0.03, 0.03))
SICK = ((0.02, 0.01), (0.06, 0.01), (0.1, 0.01), (0.2, 0.01), (0.2, 0.03), (0.5, 0.01))
SCENARIOS = tuple(
    Scenario(errors=errors, stable_errors=stable, slower=slower, spread=spread, per_minute=per_minute)
    for per_minute in (1000, 60)
    for errors, stable, slower, spread in (
        *((*both, 1.0, 0.3) for both in HEALTHY + SICK),
        *((0.01, 0.01, 3.0, spread) for spread in (0.25, 0.3, 0.5)),
    )
)
HEAD = (
    "| candidate / stable | requests a minute | rolled back | after requests to the candidate, median (95 %) "
    "| after minutes | promoted to the second step | after minutes, median (95 %) | to the end | held "
    "| one-minute threshold: rolled back | five failed checks: rolled back |"
)


def row(scenario: Scenario, limits: Limits, runs: int, seed: int) -> str:
    """Runs all releases of a scenario. Returns the line of the table."""
    steps = run_releases(scenario, SHARES, limits, runs, np.random.default_rng(seed))
    step = steps[0]
    sick, well = step.verdict == ROLLED_BACK, step.verdict == PROMOTED
    rolled_back = sum(int((each.verdict == ROLLED_BACK).sum()) for each in steps)
    held = sum(int((each.verdict == HELD).sum()) for each in steps)
    done = int((steps[-1].verdict == PROMOTED).sum()) if len(steps) == len(SHARES) else 0
    traffic = ticks(scenario, SHARES[0], runs, np.random.default_rng(seed), every_s=60)
    failed, requests = failed_checks(traffic, limits, runs, MINUTES)
    cells = [
        _named(scenario),
        f"{scenario.per_minute:.0f}",
        _percent(rolled_back, runs),
        _middle(step.requests[sick]),
        _middle(step.seconds[sick] / 60, 1),
        _percent(int(well.sum()), runs),
        _middle(step.seconds[well] / 60, 1),
        _percent(done, runs),
        _percent(held, runs),
        *(_percent(int(first(failed, requests, checks)[0].sum()), runs) for checks in (1, CHECKS)),
    ]
    return f"| {' | '.join(cells)} |"


def _named(scenario: Scenario) -> str:
    errors = f"{100 * scenario.errors:.0f} % / {100 * scenario.stable_errors:.0f} %"
    if scenario.slower == 1:
        return errors
    return f"{errors}, {scenario.slower:.0f} times as slow, p95/median {np.exp(1.645 * scenario.spread):.2f}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if 0 < part < whole else f"{100 * part / whole:.0f} %"


def _middle(values: np.ndarray, digits: int = 0) -> str:
    return f"{np.median(values):.{digits}f} ({np.quantile(values, 0.95):.{digits}f})" if len(values) else ""


def table(scenarios: Sequence[Scenario], runs: int, seed: int) -> Iterator[str]:
    yield HEAD
    yield "|" + " --- |" * (HEAD.count("|") - 1)
    for scenario in scenarios:
        yield row(scenario, Limits(), runs, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="only scenarios whose name contains this text")
    arguments = parser.parse_args()
    chosen = [scenario for scenario in SCENARIOS if arguments.only in _named(scenario)]
    for line in table(chosen, arguments.runs, arguments.seed):
        print(line, flush=True)


if __name__ == "__main__":
    main()
