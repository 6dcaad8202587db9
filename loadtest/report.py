"""What a run's shots say together: counts, exact quantiles, a warning where the generator was the limit. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loadtest.shot import Shot

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
# Above this our own lateness is no longer small beside what we measure.
LATE_MS = 5.0


@dataclass(frozen=True, slots=True)
class Summary:
    """Latencies are of answered shots only (a refusal is quick and would flatter them); all times in milliseconds.

    `throughput_per_s` is of answered shots, from the first planned to the last done."""

    planned: int
    sent: int
    answered: int
    not_sent: int
    duration_s: float
    throughput_per_s: float
    by_status: dict[str, int]
    errors: dict[str, int]
    from_planned_ms: dict[str, float]
    from_sent_ms: dict[str, float]
    first_byte_ms: dict[str, float]
    lateness_ms: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def quantile(ascending: Sequence[int], share: float) -> int:
    """The smallest value that at least this share of all do not exceed (nearest rank, exact, nothing interpolated)."""
    rank = -(-len(ascending) * round(share * 1_000_000) // 1_000_000)
    return ascending[max(0, rank - 1)]


def summarise(shots: Sequence[Shot]) -> Summary:
    answered = [shot for shot in shots if shot.is_answered]
    sent = [shot for shot in shots if shot.sent_ns is not None]
    end_ns = max((shot.done_ns for shot in shots if shot.done_ns is not None), default=0)
    duration_s = (end_ns - min((shot.planned_ns for shot in shots), default=0)) / 1e9
    statuses = Counter(str(shot.status) for shot in shots if shot.status is not None)
    return Summary(
        planned=len(shots),
        sent=len(sent),
        answered=len(answered),
        not_sent=len(shots) - len(sent),
        duration_s=duration_s,
        throughput_per_s=len(answered) / duration_s if duration_s > 0 else 0.0,
        by_status=dict(sorted(statuses.items())),
        errors=dict(Counter(shot.error for shot in shots if shot.error is not None).most_common()),
        from_planned_ms=_quantiles([shot.from_planned_ns for shot in answered]),
        from_sent_ms=_quantiles([shot.from_sent_ns for shot in answered]),
        first_byte_ms=_quantiles(
            [
                shot.first_byte_ns - shot.sent_ns
                for shot in answered
                if shot.first_byte_ns is not None and shot.sent_ns is not None
            ]
        ),
        lateness_ms=_quantiles([shot.lateness_ns for shot in sent]),
    )


def _quantiles(values: Sequence[int | None]) -> dict[str, float]:
    ascending = sorted(value for value in values if value is not None)
    return {name: quantile(ascending, share) / 1e6 for name, share in QUANTILES.items()} if ascending else {}


def text(summary: Summary) -> str:
    lines = [
        f"planned {summary.planned}, sent {summary.sent}, not sent {summary.not_sent}, answered {summary.answered}",
        f"{summary.throughput_per_s:.1f} answers per second over {summary.duration_s:.2f} s",
        "status " + (", ".join(f"{status}: {count}" for status, count in summary.by_status.items()) or "none"),
        "",
        _row("milliseconds", list(QUANTILES)),
    ]
    for title, quantiles in (
        ("from planned", summary.from_planned_ms),
        ("from sent", summary.from_sent_ms),
        ("to first byte", summary.first_byte_ms),
        ("we were late by", summary.lateness_ms),
    ):
        lines.append(_row(title, [f"{quantiles[name]:.3f}" if quantiles else "-" for name in QUANTILES]))
    if summary.errors:
        lines += ["", "not answered:"]
        lines += [f"{count:8}  {error}" for error, count in summary.errors.items()]
    lines += [f"\nwarning: {warning}" for warning in warnings(summary)]
    return "\n".join(lines)


def warnings(summary: Summary) -> list[str]:
    """Why these numbers may say more about the load generator than about the server."""
    said = []
    if summary.not_sent:
        said.append(f"{summary.not_sent} shots were not sent; the load was lower than asked for")
    if summary.lateness_ms and summary.lateness_ms["p99"] > LATE_MS:
        late_ms = summary.lateness_ms["p99"]
        said.append(f"1 % of the shots left {late_ms:.1f} ms late or more; this machine is too busy for the rate")
    return said


def _row(title: str, cells: Sequence[str]) -> str:
    return f"{title:16}" + "".join(f"{cell:>12}" for cell in cells)
