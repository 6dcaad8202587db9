"""The best classes of each row as text, in Triton's format: `value:index`, plus `:label` if the classes have names."""

from collections.abc import Sequence

import numpy as np

from serving.protocol.messages import Tensor
from serving.protocol.objects import empty

_AT_ONCE = 1 << 14


def best_classes(scores: Tensor, count: int, labels: Sequence[str] = (), *, batched: bool = True) -> Tensor:
    """Returns BYTES of the shape `[rows, min(count, elements)]`, best first; equal scores by index, NaN last.

    batched: False for a model without a batch dimension. All elements are then ranked together, and the shape is
        `[min(count, elements)]`.
    """
    flat = scores.reshape(scores.shape[0] if batched else 1, -1)
    count = min(count, flat.shape[1])
    numbers = flat.astype(np.float32) if flat.dtype.kind == "V" or flat.dtype == np.float16 else flat
    best = empty(flat.shape[0] * count, np.dtype(object)).reshape(flat.shape[0], count)
    for row, texts in zip(numbers, best, strict=True):
        ranking = _ranking(row, count)
        # In parts: one call over all classes would hold the interpreter's lock for too long.
        for start in range(0, count, _AT_ONCE):
            some = ranking[start : start + _AT_ONCE].tolist()
            texts[start : start + _AT_ONCE] = [_text(row, index, labels) for index in some]
    return best if batched else best[0]


def _ranking(row: Tensor, count: int) -> Tensor:
    keys = np.where(np.isnan(row), -np.inf, row) if row.dtype.kind == "f" else row
    # Sorting the reversed row and reading it backwards is stable. Sorting by -row would be wrong for unsigned numbers.
    order = len(keys) - 1 - np.argsort(keys[::-1], kind="stable")[::-1]
    return order[:count]


def _text(row: Tensor, index: int, labels: Sequence[str]) -> bytes:
    value = row[index].item()
    number = f"{value:f}" if isinstance(value, float) else str(int(value))
    label = f":{labels[index]}" if index < len(labels) else ""
    return f"{number}:{index}{label}".encode()
