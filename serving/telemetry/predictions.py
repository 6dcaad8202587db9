"""Counts the predicted classes in a sample of a model's answers, so that people can see when their distribution shifts.

Only for outputs with class labels. Only labels are kept, never text that a model generated.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from serving.core.outcome import Completed
from serving.core.witness import Exchange
from serving.telemetry.deferred import Allowance

PER_S = 10  # answers sampled per second, for one replica
MOST_ROWS = 8  # rows counted per answer


class Predictions:
    """A `core.witness.Witness` that counts the class with the highest score.

    labels: the class labels by output name; only the first of these outputs that an answer has is counted.
    batched: whether the first dimension are rows with a class each; otherwise the whole output has one class.
    """

    def __init__(self, labels: Mapping[str, Sequence[str]], *, per_s: int = PER_S, batched: bool = True) -> None:
        self.counts: Counter[str] = Counter()
        self._labels = labels
        self._batched = batched
        self._allowance = Allowance(per_s)

    def answered(self, exchange: Exchange) -> None:
        outcome = exchange.outcome
        if (
            type(outcome) is Completed
            and isinstance(outcome.value, Mapping)
            and self._allowance.take(exchange.ended_ns)
        ):
            for output, labels in self._labels.items():
                if output in outcome.value:
                    self._count(outcome.value[output], labels)
                    return

    def _count(self, scores: np.ndarray, labels: Sequence[str]) -> None:
        scores = scores if self._batched else scores[np.newaxis]
        rows = scores[:MOST_ROWS].reshape(min(MOST_ROWS, scores.shape[0]), -1)
        numbers = rows.astype(np.float32) if rows.dtype.kind == "V" else rows  # BF16 has no argmax
        for best in numbers.argmax(axis=1).tolist():
            self.counts[labels[best] if best < len(labels) else str(best)] += 1
