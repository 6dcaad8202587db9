"""Calls a model's `prepare` and `split` (which calls its own `finish`), and turns their results into answers or errors.

Every exception of these methods is caught, BaseException included. Much of this runs in threads that a SystemExit
would end, and then no request of the thread would be answered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from models.base import InvalidInput as UnusableInput
from models.base import Model, Prepared, Tensors
from serving.core.errors import InvalidInput, ModelError, ServingError
from serving.core.request import Request
from serving.runtime.checking import check_declared, check_rows

Parameters = Mapping[str, object] | None


def prepared(model: Model, inputs: Tensors, parameters: Parameters = None) -> Prepared | ServingError:
    """Returns the request as `collate` takes it, or the error if `prepare` fails.

    parameters: those of the request, if the model takes any. Only requests with equal parameters share a batch.
    """
    try:
        part = model.prepare(inputs if model.spec.batched else _as_one_row(inputs))
        if parameters is None:
            return part
        key = frozenset((name, type(value), value) for name, value in parameters.items())
        return replace(part, group=(part.group, key), parameters=parameters)
    except UnusableInput as error:
        return InvalidInput(str(error))
    except BaseException as error:
        return as_model_error(error)


def split_one_by_one_if_need_be(
    model: Model, outputs: Tensors, requests: Sequence[Request]
) -> list[Tensors | ServingError]:
    """Splits the outputs of a batch into one answer or error per request, in the order of `requests`.

    If splitting fails for the batch, each request is split alone, so that only the faulty one fails.
    """
    parts: list[Any] = [request.payload for request in requests]
    try:
        answers = list(model.split(outputs, parts))
        if len(answers) != len(parts):
            raise ModelError("the model returned no output")
    except BaseException as error:
        if len(parts) == 1:
            return [as_model_error(error)]
    else:
        checked = cast(list[Tensors | ServingError], answers)  # without `finish`, they were checked with their batch
        if model.finishes:
            checked = [_checked(model, answer, request) for answer, request in zip(answers, requests, strict=True)]
        return checked if model.spec.batched else [_without_row(answer) for answer in checked]
    alone: list[Tensors | ServingError] = []
    row = 0
    for request in requests:
        own = {name: array[row : row + request.rows] for name, array in outputs.items()}
        alone += split_one_by_one_if_need_be(model, own, [request])
        row += request.rows
    return alone


def _checked(model: Model, answer: Tensors | BaseException, request: Request) -> Tensors | ServingError:
    try:
        if isinstance(answer, BaseException):
            return as_model_error(answer)
        check_rows(answer, request.rows)
        check_declared(answer, model.spec.outputs)
    except ModelError as error:
        return error
    return answer


def _without_row(answer: Tensors | ServingError) -> Tensors | ServingError:
    return answer if isinstance(answer, ServingError) else {name: array[0] for name, array in answer.items()}


def _as_one_row(tensors: Tensors) -> Tensors:
    """Adds a first dimension of 1: to the runtime, a model without a batch dimension has batches of a single row."""
    return {name: array[np.newaxis] for name, array in tensors.items()}


def as_model_error(error: BaseException) -> ModelError:
    """Returns `error` itself if it is a ModelError, otherwise a ModelError with it as the cause."""
    if isinstance(error, ModelError):
        return error
    failure = ModelError(f"the model failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
