"""The tests that a candidate is put to, from the evidence of a step. Pure; `judge.py` draws the conclusion."""

from collections.abc import Iterator
from math import ceil, floor, log, log2

from serving.core.octaves import PER_OCTAVE, bound_ns
from serving.traffic.betting import lower_limit, mean, upper_limit
from serving.traffic.e_process import log_e_above, log_e_below
from serving.traffic.finding import Claim, Finding, percent, share_text
from serving.traffic.limits import Limits, Metric
from serving.traffic.quantile import BEYOND, above, p95, p95_limits
from serving.traffic.trial import Trial

LIMIT_PART = 0.5  # of the chance of a mistake about the latency, for the stable version's p95


def found(trial: Trial, limits: Limits, *, step: int, steps: int, alone: bool) -> Iterator[Finding]:
    """Yields the results of all tests. alone: the candidate has all the traffic, so nothing is compared with it."""
    yield from errors(trial, limits, limits.alpha_of(Metric.ERRORS, step, steps))
    if not alone:
        yield beside_stable(trial, limits.alpha_of(Metric.ERRORS_BESIDE_STABLE, step, steps))
    yield from latency(trial, limits, limits.alpha_of(Metric.LATENCY, step, steps))
    if limits.value_margin is not None and not alone:
        yield from value(trial, limits.value_margin, limits.alpha_of(Metric.VALUE, step, steps), limits.promote_alpha)


def errors(trial: Trial, limits: Limits, alpha: float) -> Iterator[Finding]:
    """Yields whether more, and whether fewer, than the limit of the candidate's computed requests fail."""
    failed, computed = trial.candidate.counted.failed, trial.candidate.counted.computed
    seen = f"{share_text(failed, computed)} requests computed by the candidate failed"
    limit, candidate = limits.errors, failed / computed if computed else None
    yield _tested(
        Metric.ERRORS, "exceeds", seen, f"more than {percent(limit)} do",
        log_e_above(failed, computed, limit), alpha, candidate, limit=limit,
    )  # fmt: skip
    yield _tested(
        Metric.ERRORS, "keeps", seen, f"fewer than {percent(limit)} do",
        log_e_below(failed, computed, limit), limits.promote_alpha, candidate, limit=limit,
    )  # fmt: skip


def beside_stable(trial: Trial, alpha: float) -> Finding:
    """Returns whether the candidate's requests fail more often than those of the stable version at the same time."""
    own, others = trial.candidate.counted, trial.stable.counted
    seen = (
        f"{share_text(own.failed, own.computed)} requests computed by the candidate failed, "
        f"{share_text(others.failed, others.computed)} by the stable version"
    )
    return _tested(
        Metric.ERRORS_BESIDE_STABLE, "exceeds", seen, "the candidate's fail more often", trial.errors.log_e(), alpha,
        own.failed / own.computed if own.computed else None,
        others.failed / others.computed if others.computed else None,
    )  # fmt: skip


def latency(trial: Trial, limits: Limits, alpha: float) -> Iterator[Finding]:
    """Yields whether more, and whether fewer, than 5 % of the candidate's answers took longer than the limit allows.

    The limit is a multiple of the stable version's p95, of which only limits are known: to exceed it, the answers have
    to be later than its upper limit allows; to keep it, earlier than its lower limit does."""
    octaves = PER_OCTAVE * log2(limits.latency_factor)
    times = trial.stable.counted.latency or trial.before
    _, highest = p95_limits(times, alpha * LIMIT_PART)
    lowest, _ = p95_limits(times, limits.promote_alpha / 2)
    allowed = None if highest is None else highest + ceil(octaves)
    wanted = None if lowest is None else lowest + floor(octaves)
    yield _late(trial, limits, "exceeds", allowed, alpha * (1 - LIMIT_PART))
    yield _late(trial, limits, "keeps", wanted, limits.promote_alpha / 2)


def _late(trial: Trial, limits: Limits, claim: Claim, bucket: int | None, alpha: float) -> Finding:
    """Returns the result of a test of how many answers took longer than the bound of this bucket."""
    own, others = trial.candidate.counted.latency, trial.stable.counted.latency
    answers = sum(own.values())
    if bucket is None:
        seen, log_e = "The stable version has answered too few requests to know its p95", 0.0
    else:
        late = above(own, bucket)
        seen = (
            f"{share_text(late, answers)} answers of the candidate took longer than {bound_ns(bucket) / 1e6:.3g} ms, "
            f"{limits.latency_factor:g} times the stable version's p95"
        )
        log_e = (log_e_above if claim == "exceeds" else log_e_below)(late, answers, BEYOND)
    that = f"{'more' if claim == 'exceeds' else 'fewer'} than {percent(BEYOND)} do"
    return _tested(Metric.LATENCY, claim, seen, that, log_e, alpha, _ms(p95(own)), _ms(p95(others)), _ms(bucket))


def value(trial: Trial, margin: float, alpha: float, promote_alpha: float) -> Iterator[Finding]:
    """Yields whether the mean of the candidate's values is below that of the stable version by more than the margin."""
    own, others = trial.candidate.values, trial.stable.values
    means, limit = (mean(own), mean(others)), -margin
    seen = f"The values sent back have the mean {_number(means[0])}, those of the stable version {_number(means[1])}"
    best = upper_limit(own, alpha / 2) - lower_limit(others, alpha / 2)
    worst = lower_limit(own, promote_alpha / 2) - upper_limit(others, promote_alpha / 2)
    yield Finding(
        metric=Metric.VALUE, claim="exceeds", is_shown=best < limit, candidate=means[0], stable=means[1], limit=limit,
        seen=seen, that=f"the difference is at most {best:+.3f}, and {limit:+.3f} is the limit",
    )  # fmt: skip
    yield Finding(
        metric=Metric.VALUE, claim="keeps", is_shown=worst > limit, candidate=means[0], stable=means[1], limit=limit,
        seen=seen, that=f"the difference is at least {worst:+.3f}, and {limit:+.3f} is the limit",
    )  # fmt: skip


def _tested(
    metric: Metric,
    claim: Claim,
    seen: str,
    that: str,
    log_e: float,
    alpha: float,
    candidate: float | None,
    stable: float | None = None,
    limit: float | None = None,
) -> Finding:
    needed = -log(alpha)
    return Finding(
        metric=metric, claim=claim, seen=seen, that=that, is_shown=log_e >= needed, candidate=candidate, stable=stable,
        limit=limit, log_e=log_e, log_needed=needed,
    )  # fmt: skip


def _ms(bucket: int | None) -> float | None:
    return None if bucket is None else bound_ns(bucket) / 1e6


def _number(mean: float | None) -> str:
    return "unknown" if mean is None else f"{mean:.3f}"
