"""Judges a candidate by the evidence of a step: go on with it, promote the step, roll back, or hold.

Pure. A candidate is rolled back for what was shown against it, and promoted for what was shown in its favour; that
nothing was seen is neither. `docs/judge.md` says what is promised.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import log
from typing import Any

from serving.traffic.e_process import log_e_above
from serving.traffic.finding import Finding, share_text
from serving.traffic.findings import found
from serving.traffic.limits import Limits
from serving.traffic.trial import Trial

REFUSED = 0.05  # of the candidate's requests may be refused while it is promoted


class Verdict(StrEnum):
    """The next move in a step. HOLD: its deadline has passed, a person has to look."""

    CONTINUE = "continue"
    PROMOTE = "promote"
    ROLL_BACK = "roll back"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with its reasons in sentences, and all results of tests.

    reasons: what was shown; for CONTINUE and HOLD, what is missing for a promotion."""

    verdict: Verdict
    reasons: tuple[str, ...]
    findings: tuple[Finding, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict.value,
            "reasons": list(self.reasons),
            "findings": [finding.as_json() for finding in self.findings],
        }


def judge(trial: Trial, limits: Limits, *, step: int, steps: int, now_s: float, alone: bool = False) -> Judgement:
    """Judges the step of this number, which counts from 0.

    alone: the candidate has all the traffic, so that there is no stable version to compare it with at the same time."""
    findings = tuple(found(trial, limits, step=step, steps=steps, alone=alone))
    if against := [finding.sentence() for finding in findings if finding.claim == "exceeds" and finding.is_shown]:
        return Judgement(Verdict.ROLL_BACK, tuple(against), findings)
    in_favour = [finding for finding in findings if finding.claim == "keeps"]
    if not (missing := tuple(_missing(trial, limits, in_favour, now_s))):
        return Judgement(Verdict.PROMOTE, tuple(finding.sentence() for finding in in_favour), findings)
    if now_s - trial.began_s < limits.deadline_s:
        return Judgement(Verdict.CONTINUE, missing, findings)
    late = f"The step was not decided within {limits.deadline_s:,.0f} s."
    return Judgement(Verdict.HOLD, (late, *missing), findings)


def _missing(trial: Trial, limits: Limits, in_favour: list[Finding], now_s: float) -> list[str]:
    """Returns in sentences what is missing for a promotion."""
    counted, age_s = trial.candidate.counted, now_s - trial.began_s
    missing = []
    if not counted.computed:
        missing.append("The candidate has not computed any request.")
    elif counted.computed < limits.minimum_requests:
        missing.append(f"The candidate has computed {counted.computed} of at least {limits.minimum_requests} requests.")
    if age_s < limits.soak_s:
        missing.append(f"The step takes at least {limits.soak_s:,.0f} s, {age_s:,.0f} s have passed.")
    missing += [f"Not shown yet: {finding.sentence()}" for finding in in_favour if not finding.is_shown]
    asked = counted.computed + counted.refused
    if log_e_above(counted.refused, asked, REFUSED) >= -log(limits.promote_alpha):
        missing.append(
            f"The candidate refused {share_text(counted.refused, asked)} requests; more than {REFUSED:.0%} keeps it "
            "from being promoted."
        )
    return missing
