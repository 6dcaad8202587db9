"""What a model says most often, where its outputs have class labels: counted for a sample of its answers, so that a
person sees when it begins to say something else. Only labels are kept, never a text that a model wrote."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from serving.core.outcome import Completed
from serving.core.witness import Exchange
from serving.telemetry.deferred import Allowance

PER_S = 10  # answers looked at, of one replica
MOST_ROWS = 8  # of one answer


class Predictions:
    """A `core.witness.Witness`. labels: by output; the first output of them that an answer has is the one counted.
    batched: its first dimension are rows, each with a label; else there is one label for all of it."""

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
        numbers = rows.astype(np.float32) if rows.dtype.kind == "V" else rows  # BF16 has no order of its own
        for best in numbers.argmax(axis=1).tolist():
            self.counts[labels[best] if best < len(labels) else str(best)] += 1
