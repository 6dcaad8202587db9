"""Summarises the shots of a run: counts, exact quantiles, and a warning if the generator was the bottleneck. Pure
functions."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from loadtest.shot import Shot
from loadtest.tally import Tally, kind_of

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
# The generator was the bottleneck if the p99 of its lateness exceeds LATE_MS, or both LATE_FLOOR_MS and this share of
# the p99 of latency.
LATE_SHARE, LATE_FLOOR_MS, LATE_MS = 0.1, 0.5, 5.0
BUSY_SHARE = 0.85  # of a core; above this share, answers wait to be read


@dataclass(frozen=True, slots=True)
class Summary:
    """The summary of a run. Latencies include answered shots only, because fast refusals would lower them. All times
    are in milliseconds.

    `in_time`: shots answered by their deadline; without one, all answered shots. Rates per second are over the time
    from the first planned instant to the last answer. `generator_share`: the share of a core that the generator's
    busiest process used. `is_generator_limit`: the generator was the bottleneck; do not judge the server by this run.
    """

    planned: int
    sent: int
    answered: int
    in_time: int
    not_sent: int
    duration_s: float
    throughput_per_s: float
    goodput_per_s: float
    by_status: dict[str, int]
    errors: dict[str, int]
    from_planned_ms: dict[str, float]
    from_sent_ms: dict[str, float]
    first_byte_ms: dict[str, float]
    lateness_ms: dict[str, float]
    generator_share: float = 0.0
    is_generator_limit: bool = False
    warnings: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def quantile(ascending: Sequence[int], share: float) -> int:
    """Returns the smallest value that at least this share of all values do not exceed (exact nearest rank, without
    interpolation)."""
    rank = -(-len(ascending) * round(share * 1_000_000) // 1_000_000)
    return ascending[max(0, rank - 1)]


def summarise(
    shots: Sequence[Shot], *, within_ns: int | None = None, cpu_share: float = 0.0, open_loop: bool = True
) -> Summary:
    answered = [shot for shot in shots if shot.is_answered]
    sent = [shot for shot in shots if shot.sent_ns is not None]
    in_time = sum(shot.is_in_time(within_ns) for shot in answered)
    end_ns = max((shot.done_ns for shot in shots if shot.done_ns is not None), default=0)
    duration_s = (end_ns - min((shot.planned_ns for shot in shots), default=0)) / 1e9
    statuses = Counter(str(shot.status) for shot in shots if shot.status is not None)
    from_planned_ms = _quantiles([shot.from_planned_ns for shot in answered])
    lateness_ms = _quantiles([shot.lateness_ns for shot in sent])
    not_sent = len(shots) - len(sent)
    return Summary(
        planned=len(shots),
        sent=len(sent),
        answered=len(answered),
        in_time=in_time,
        not_sent=not_sent,
        duration_s=duration_s,
        throughput_per_s=len(answered) / duration_s if duration_s > 0 else 0.0,
        goodput_per_s=in_time / duration_s if duration_s > 0 else 0.0,
        by_status=dict(sorted(statuses.items())),
        errors=dict(Counter(kind_of(shot.error) for shot in shots if shot.error is not None).most_common()),
        from_planned_ms=from_planned_ms,
        from_sent_ms=_quantiles([shot.from_sent_ns for shot in answered]),
        first_byte_ms=_quantiles(
            [
                shot.first_byte_ns - shot.sent_ns
                for shot in answered
                if shot.first_byte_ns is not None and shot.sent_ns is not None
            ]
        ),
        lateness_ms=lateness_ms,
        generator_share=cpu_share,
        is_generator_limit=was_late(lateness_ms, from_planned_ms),
        warnings=warnings(not_sent, lateness_ms, from_planned_ms, cpu_share, open_loop=open_loop),
    )


def _quantiles(values: Sequence[int | None]) -> dict[str, float]:
    ascending = sorted(value for value in values if value is not None)
    return {name: quantile(ascending, share) / 1e6 for name, share in QUANTILES.items()} if ascending else {}


def was_late(lateness_ms: Mapping[str, float], from_planned_ms: Mapping[str, float]) -> bool:
    """Returns whether shots left so late that latencies from the planned instant are distorted."""
    late_ms = lateness_ms.get("p99", 0.0)
    return late_ms > LATE_MS or (late_ms > LATE_FLOOR_MS and late_ms > LATE_SHARE * from_planned_ms.get("p99", 0.0))


def warnings(
    not_sent: int,
    lateness_ms: Mapping[str, float],
    from_planned_ms: Mapping[str, float],
    cpu_share: float,
    *,
    open_loop: bool = True,
) -> list[str]:
    """Returns the reasons why the load generator may have distorted these numbers."""
    reasons = []
    if not_sent:
        reasons.append(f"{not_sent} shots were not sent; the load was lower than planned")
    if was_late(lateness_ms, from_planned_ms):
        reasons.append(
            f"the generator was the bottleneck: 1 % of the shots left {lateness_ms['p99']:.1f} ms late or more, with "
            f"a p99 of {from_planned_ms.get('p99', 0.0):.1f} ms; use a lower rate, more processes or another machine"
        )
    # A closed loop without pauses keeps its generator busy by design, and has no planned instants to miss.
    if open_loop and cpu_share > BUSY_SHARE:
        reasons.append(
            f"the generator was close to its limit: one of its processes used {cpu_share:.0%} of a core, so answers "
            "waited to be read; use more processes"
        )
    return reasons


def text(summary: Summary) -> str:
    lines = [
        f"planned {summary.planned}, sent {summary.sent}, not sent {summary.not_sent}, answered {summary.answered}, "
        f"in time {summary.in_time}",
        f"{summary.throughput_per_s:.1f} answers and {summary.goodput_per_s:.1f} in time per second, over "
        f"{summary.duration_s:.2f} s; the generator used {summary.generator_share:.0%} of a core",
        "status " + (", ".join(f"{status}: {count}" for status, count in summary.by_status.items()) or "none"),
        "",
        _row("milliseconds", list(QUANTILES)),
    ]
    for title, quantiles in (
        ("from planned", summary.from_planned_ms),
        ("from sent", summary.from_sent_ms),
        ("to first byte", summary.first_byte_ms),
        ("generator late by", summary.lateness_ms),
    ):
        lines.append(_row(title, [f"{quantiles[name]:.3f}" if quantiles else "-" for name in QUANTILES]))
    if summary.errors:
        lines += ["", "not answered:"]
        lines += [f"{count:8}  {error}" for error, count in summary.errors.items()]
    lines += [f"\nwarning: {warning}" for warning in summary.warnings]
    return "\n".join(lines)


def group_text(title: str, groups: Mapping[str, Tally]) -> str:
    """Formats one line per task or tenant; empty if there is only one. Quantiles are within half a percent."""
    if len(groups) < 2:
        return ""
    lines = [_row(title, ["planned", "answered", "in time", "p50 ms", "p99 ms"])]
    for name, tally in groups.items():
        quantiles = [tally.latency.quantile(share) for share in (0.5, 0.99)]
        cells = [str(tally.planned), str(tally.answered), str(tally.in_time)]
        lines.append(_row(name[:20], cells + ["-" if value is None else f"{value / 1e6:.2f}" for value in quantiles]))
    return "\n".join(lines)


def _row(title: str, cells: Sequence[str]) -> str:
    return f"{title:20}" + "".join(f"{cell:>11}" for cell in cells)
