"""Helpers for tests of a model, in Headway and in users' projects: check that batching does not change answers."""

from collections.abc import Hashable, Sequence
from typing import cast

import numpy as np

from models.base import Bucket, Model, Prepared, Tensors


def assert_batched_equals_unbatched(
    model: Model, requests: Sequence[Tensors] | None = None, *, atol: float = 1e-5, rtol: float = 1e-4
) -> None:
    """Computes each request alone and in batches, and compares the answers. The batches hold all requests that may
    share one: in order, in reverse order, and in a bucket with more rows and a greater length than needed.

    requests: inputs as a client sends them; None: made-up requests of several sizes.
    """
    parts = _made_up(model) if requests is None else [model.prepare(dict(request)) for request in requests]
    alone = [_answers(model, [part], Bucket(part.rows, part.length))[0] for part in parts]
    for members in _groups(parts):
        rows = sum(parts[index].rows for index in members)
        length = max(parts[index].length for index in members)
        trials = [
            (members, Bucket(rows, length), "together"),
            (members[::-1], Bucket(rows, length), "together in reverse order"),
            (members, Bucket(rows + 3, _longer(model, length)), "in a larger bucket"),
        ]
        for order, bucket, how in trials:
            answers = _answers(model, [parts[index] for index in order], bucket)
            for index, answer in zip(order, answers, strict=True):
                _assert_same(alone[index], answer, f"request {index}, {how} ({bucket})", atol, rtol)


def _made_up(model: Model) -> list[Prepared]:
    rows = [1, 2, 1] if (model.spec.max_batch_rows or 2) >= 2 else [1, 1, 1]
    lengths = model.lengths()
    return [model.sample(count, lengths[index % len(lengths)]) for index, count in enumerate(rows)]


def _groups(parts: Sequence[Prepared]) -> list[list[int]]:
    groups: dict[Hashable, list[int]] = {}
    for index, part in enumerate(parts):
        groups.setdefault(part.group, []).append(index)
    return list(groups.values())


def _longer(model: Model, length: int) -> int:
    """Returns the next greater length of a bucket, or the same length if there is none."""
    return next((bucket for bucket in model.lengths() if bucket > length), length)


def _answers(model: Model, parts: Sequence[Prepared], bucket: Bucket) -> list[Tensors]:
    answers = model.split(model.forward(model.collate(parts, bucket)), parts)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return cast(list[Tensors], answers)


def _assert_same(expected: Tensors, actual: Tensors, which: str, atol: float, rtol: float) -> None:
    assert actual.keys() == expected.keys(), f"{which}: outputs {list(actual)} instead of {list(expected)}"
    for name, array in expected.items():
        other = actual[name]
        assert other.shape == array.shape, f"{which}: {name!r} has shape {other.shape}, alone {array.shape}"
        if array.dtype.kind in "OUSb":
            assert np.array_equal(other, array), f"{which}: {name!r} is {other.tolist()}, alone {array.tolist()}"
            continue
        difference = np.abs(other.astype(np.float64) - array.astype(np.float64))
        allowed = atol + rtol * np.abs(array.astype(np.float64))
        assert np.all(difference <= allowed), f"{which}: {name!r} is off by up to {difference.max():.3g}"
