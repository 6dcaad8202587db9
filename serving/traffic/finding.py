"""One result of a test of the candidate, with its numbers, as a value and as a sentence. Pure."""

from dataclasses import dataclass
from math import exp
from typing import Any, Literal

from serving.traffic.limits import Metric

Claim = Literal["exceeds", "keeps"]
_MOST = 1e12  # evidence beyond is written as this number


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A test of one claim: that the candidate exceeds a limit, or that it keeps it.

    seen: what was seen, as a sentence without a full stop. that: what there is evidence for.
    candidate, stable: the number that was seen of each version; limit: the one that the claim is about. Shares, means,
    or milliseconds; None if there is none yet.
    log_e: the logarithm of the evidence for the claim; log_needed: from where on it is shown. None for a comparison of
    limits, which is shown or not.
    """

    metric: Metric
    claim: Claim
    seen: str
    that: str
    is_shown: bool
    candidate: float | None = None
    stable: float | None = None
    limit: float | None = None
    log_e: float | None = None
    log_needed: float | None = None

    def sentence(self) -> str:
        if self.log_e is None or self.log_needed is None:
            return f"{self.seen}; {self.that}."
        return f"{self.seen}; evidence that {self.that}: {_odds(self.log_e)}, needed {_odds(self.log_needed)}."

    def as_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric.value,
            "claim": self.claim,
            "candidate": self.candidate,
            "stable": self.stable,
            "limit": self.limit,
            "evidence": None if self.log_e is None else _evidence(self.log_e),
            "needed": None if self.log_needed is None else _evidence(self.log_needed),
            "shown": self.is_shown,
            "text": self.sentence(),
        }


def _evidence(log_e: float) -> float:
    """Returns the evidence as a number with four digits, which JSON can hold."""
    return float(f"{min(_MOST, exp(min(log_e, 700.0))):.4g}")


def _odds(log_e: float) -> str:
    evidence = exp(min(log_e, 700.0))
    if evidence > _MOST / 1e6:
        return "over 1,000,000:1"
    return f"{evidence:,.0f}:1" if evidence >= 10 else f"{evidence:.1f}:1"


def share_text(part: int, whole: int) -> str:
    """Returns `12 of 60 (20 %)`."""
    return f"{part:,} of {whole:,}" + (f" ({percent(part / whole)})" if whole else "")


def percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"
