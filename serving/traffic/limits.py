"""The limits that a candidate has to keep, and how the chance of a mistake is divided over steps and tests. Pure."""

from dataclasses import dataclass
from enum import StrEnum


class Metric(StrEnum):
    """Something that a candidate is judged by."""

    ERRORS = "errors"  # over the limit
    ERRORS_BESIDE_STABLE = "errors beside stable"
    LATENCY = "latency"
    VALUE = "value"  # what clients sent back


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of a release.

    errors: the largest share of computed requests that may fail. latency_factor: of the stable version's p95, which the
        candidate's may be. value_margin: by how much the mean of the values that clients send back may be below that of
        the stable version; None: nobody is asked for values.
    alpha: the chance that a candidate within all limits is rolled back, over all steps and metrics.
    promote_alpha: the chance that a step is promoted although the candidate exceeds a given limit.
    minimum_requests: computed by the candidate in a step before it is promoted. soak_s: the shortest time of a step,
        deadline_s: the longest; then the release is held.
    """

    errors: float = 0.05
    latency_factor: float = 2.0
    value_margin: float | None = None
    alpha: float = 0.01
    promote_alpha: float = 0.05
    minimum_requests: int = 100
    soak_s: float = 60.0
    deadline_s: float = 3600.0

    def metrics(self) -> tuple[Metric, ...]:
        return tuple(metric for metric in Metric if metric is not Metric.VALUE or self.value_margin is not None)

    def alpha_of(self, metric: Metric, step: int, steps: int) -> float:
        """Returns the chance of a false alarm that a metric may use up in a step, which counts from 0.

        The first step gets half, the next half of the rest, and so on: a bad candidate shows early, and later steps
        have more traffic to gather evidence from. The sum over all steps and metrics is alpha."""
        of_step = self.alpha / 2.0 ** min(step + 1, steps - 1)
        return of_step * _SHARES[metric] / sum(_SHARES[other] for other in self.metrics())


# The comparison with the stable version and the latency find the most, and have the most to spend.
_SHARES = {Metric.ERRORS: 1, Metric.ERRORS_BESIDE_STABLE: 2, Metric.LATENCY: 2, Metric.VALUE: 1}
