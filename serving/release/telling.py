"""Tells people and programs about releases: the answer of `GET /v2/models/<m>/release`, and the numbers of the page.

Pure. The confidence of what is shown is that of one look; the judge's own is stricter, because it looks all the time.
"""

from collections.abc import Mapping
from dataclasses import asdict
from math import sqrt
from typing import Any

from serving.core.octaves import bound_ns
from serving.release.deciding import Verdict
from serving.release.state import ENDED, Phase, Release
from serving.traffic.quantile import p95, p95_limits
from serving.traffic.trial import Arm, Trial

EXITS = {Phase.PROMOTED: 0, Phase.ROLLED_BACK: 3, Phase.ABORTED: 3, Phase.OVERTAKEN: 3, Phase.HELD: 4}
Z = 1.96  # 95 of 100
SHOWN_EVENTS = 100


def told(release: Release, verdict: Verdict | None = None) -> dict[str, Any]:
    """Returns a release as JSON. verdict: the latest, if it is newer than the log.

    exit: of a command that follows it, None while it goes on."""
    evidence = verdict.told if verdict is not None and release.phase not in ENDED else release.evidence
    return {
        "id": release.id,
        "version": release.version,
        "stable": release.stable,
        "phase": release.phase,
        "exit": EXITS.get(release.phase),
        "step": release.step,
        "share": release.share,
        "plan": release.plan.told(),
        "by": release.by,
        "why": release.why,
        "started_s": release.started_s,
        "stepped_s": release.stepped_s or None,
        "judged_from_s": release.judged_from_s or None,
        "ended_s": release.ended_s,
        "tests": {name: dict(outcome) for name, outcome in release.tests.items()},
        "waits_for": verdict.why if verdict is not None and release.phase is Phase.STEPPING else "",
        "judgement": evidence.get("judgement"),
        "arms": _arms(evidence.get("trial")),
        "events": [asdict(event) for event in release.events[-SHOWN_EVENTS:] if event.kind != "evidence"],
    }


def _arms(document: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not document:
        return None
    trial = Trial.of_json(document)
    return {"candidate": arm(trial.candidate), "stable": arm(trial.stable)}


def arm(found: Arm) -> dict[str, Any]:
    """Returns the counts of a version in the present step, with its error rate and latency and their confidence."""
    counted = found.counted
    low, high = p95_limits(counted.latency, 0.05) if counted.latency else (None, None)
    values = sum(found.values.values())
    return {
        "computed": counted.computed,
        "failed": counted.failed,
        "refused": counted.refused,
        "cancelled": counted.cancelled,
        "cached": counted.cached,
        "errors": share(counted.failed, counted.computed),
        "p95_ms": {"value": _ms(p95(counted.latency)), "low": _ms(low), "high": _ms(high)},
        "value": sum(value * count for value, count in found.values.items()) / values / 100 if values else None,
        "values": values,
    }


def share(part: int, whole: int) -> dict[str, float | None]:
    """Returns part of whole with Wilson's interval, which holds in 95 of 100 looks."""
    if not whole:
        return {"value": None, "low": None, "high": None}
    seen, square = part / whole, Z * Z
    middle = (seen + square / (2 * whole)) / (1 + square / whole)
    half = Z * sqrt(seen * (1 - seen) / whole + square / (4 * whole * whole)) / (1 + square / whole)
    return {"value": seen, "low": max(0.0, middle - half), "high": min(1.0, middle + half)}


def _ms(bucket: int | None) -> float | None:
    return None if bucket is None else round(bound_ns(bucket) / 1e6, 3)
