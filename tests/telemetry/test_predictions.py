"""Tests the counts of predicted classes in a sample of a model's answers."""

import ml_dtypes
import numpy as np
import pytest

from serving.core.outcome import Cancelled, Completed, Timings
from serving.telemetry.predictions import Predictions
from tests.core.stories import ms
from tests.telemetry.exchanges import exchange

LABELS = {"scores": ("cat", "dog")}


def answer(*rows: list[float], dtype: object = np.float32) -> Completed:
    return Completed({"scores": np.array(rows, dtype=dtype), "text": "secret"}, 0, Timings(0, 0, 0, 1))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, ml_dtypes.bfloat16])
def test_the_best_class_of_every_row_is_counted_by_its_label(dtype: object) -> None:
    predictions = Predictions(LABELS)
    predictions.answered(exchange(outcome=answer([9, 1, 0], [1, 9, 0], [2, 3, 0], [0, 1, 7], dtype=dtype)))
    assert predictions.counts == {"cat": 1, "dog": 2, "2": 1}


def test_it_samples_a_number_of_answers_per_second_and_their_first_rows() -> None:
    predictions = Predictions(LABELS, per_s=2)
    for at_ms in (0, 1, 2, 3, 1001):
        predictions.answered(exchange(outcome=answer(*[[1, 0]] * 50), ended_ns=ms(2000 + at_ms)))
    assert predictions.counts == {"cat": 3 * 8}


def test_outcomes_without_a_labelled_output_are_not_counted() -> None:
    predictions = Predictions({"others": ("a", "b")})
    for outcome in (None, Cancelled(), answer([1, 0])):
        predictions.answered(exchange(outcome=outcome))
    assert not predictions.counts
