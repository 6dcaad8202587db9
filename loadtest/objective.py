"""Checks a result against the limits in a TOML file, for CI. All functions are pure except `read`.

p99_ms = 50            # at most, from the planned instant; a shot without an answer counts as infinitely late
answered_share = 0.999 # at least
[tenants.shop]
in_time_share = 0.99   # at least; the deadline is the task's, or --within-ms of the run"""

import math
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from loadtest.result import Result, Run
from loadtest.spec import BadSpec
from loadtest.tally import Tally, together

_QUANTILE = re.compile(r"p(\d{1,2}(?:_\d+)?)_ms")  # p99_9_ms is the quantile 0.999: TOML keys hold no dot
_SHARES: Mapping[str, Callable[[Tally], int]] = {
    "answered_share": lambda tally: tally.answered,
    "in_time_share": lambda tally: tally.in_time,
}
_RATES = ("throughput_per_s", "goodput_per_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One limit of an objective. `group`: "", `tasks.NAME` or `tenants.NAME`."""

    group: str
    name: str
    bound: float

    @property
    def is_upper(self) -> bool:
        return self.name.endswith("_ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A limit and the value that was measured. `value`: the median over the runs."""

    limit: Limit
    value: float

    @property
    def is_kept(self) -> bool:
        return self.value <= self.limit.bound if self.limit.is_upper else self.value >= self.limit.bound

    def __str__(self) -> str:
        limit = self.limit
        where = f"{limit.group}.{limit.name}" if limit.group else limit.name
        wanted = f"{'at most' if limit.is_upper else 'at least'} {limit.bound:g}"
        return f"{'kept  ' if self.is_kept else 'MISSED'}  {where}: {self.value:.5g}, wanted {wanted}"


def read(path: Path) -> list[Limit]:
    """Reads the limits of an objective file. Raises BadSpec, which names the key."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadSpec(f"objective: {path}: {error}") from None
    limits = _limits(table, "", _RATES)
    for kind in ("tasks", "tenants"):
        for name, inner in table.get(kind, {}).items():
            limits += _limits(inner, f"{kind}.{name}", ())
    if not limits:
        raise BadSpec(f"objective: {path} contains no limit")
    return limits


def _limits(table: Mapping[str, object], group: str, rates: Sequence[str]) -> list[Limit]:
    limits = []
    for name, bound in table.items():
        if not group and name in ("tasks", "tenants"):
            continue
        where = f"{group}.{name}" if group else name
        if name not in (*_SHARES, *rates) and not _QUANTILE.fullmatch(name):
            raise BadSpec(f"{where}: no such limit; there are p99_ms (or any pN_ms), {', '.join((*_SHARES, *rates))}")
        if isinstance(bound, bool) or not isinstance(bound, int | float) or bound < 0:
            raise BadSpec(f"{where}: expected a number that is not negative, got {bound!r}")
        limits.append(Limit(group=group, name=name, bound=float(bound)))
    return limits


def judge(limits: Sequence[Limit], result: Result) -> list[Verdict]:
    """Judges each limit. Raises BadSpec if the result does not have the task or tenant of a limit."""
    return [Verdict(limit=limit, value=median(_value(limit, run) for run in result.runs)) for limit in limits]


def _value(limit: Limit, run: Run) -> float:
    if limit.name in _RATES:
        return float(getattr(run.summary, limit.name))
    tally = _group(limit.group, run)
    if limit.name in _SHARES:
        return _SHARES[limit.name](tally) / max(1, tally.planned)
    match = _QUANTILE.fullmatch(limit.name)
    assert match is not None
    return quantile_ms(tally, float(match[1].replace("_", ".")) / 100)


def _group(group: str, run: Run) -> Tally:
    if not group:
        return together(run.windows)
    kind, _, name = group.partition(".")
    groups: Mapping[str, Tally] = getattr(run, kind)
    if name not in groups:
        raise BadSpec(f"{group}: the result has no such name; it has {', '.join(groups) or 'none'}")
    return groups[name]


def quantile_ms(tally: Tally, share: float) -> float:
    """Returns a quantile of latency in ms over all planned shots, within half a percent. A shot without an answer
    counts as infinite."""
    rank = max(1, math.ceil(tally.planned * share - 1e-9))
    if rank > tally.answered:
        return math.inf
    value = tally.latency.quantile(rank / tally.answered)
    assert value is not None
    return value / 1e6
