"""Where the user's own methods meet requests: what `prepare` makes of one, and what a forward pass gave, cut into the
answers of its requests.

What those methods raise is caught whatever it is. Much of this runs in a thread pool, whose futures cannot carry a
StopIteration (the request would wait for ever) and whose SystemExit would end the event loop.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from models.base import InvalidInput as UnusableInput
from models.base import Model, Prepared, Tensors
from models.spec import TensorSpec
from serving.core.errors import InvalidInput, ModelError, ServingError
from serving.core.request import Request

Parameters = Mapping[str, object] | None


def prepared(model: Model, inputs: Tensors, parameters: Parameters = None) -> Prepared | ServingError:
    """The request as it is collated, or why it cannot be. parameters: where the model takes some; requests share a
    batch only if theirs are equal."""
    try:
        part = model.prepare(inputs if model.spec.batched else _as_one_row(inputs))
        if parameters is None:
            return part
        said = frozenset((name, type(value), value) for name, value in parameters.items())
        return part._replace(group=(part.group, said), parameters=parameters)
    except UnusableInput as error:
        return InvalidInput(str(error))
    except BaseException as error:
        return as_model_error(error)


def split_one_by_one_if_need_be(
    model: Model, outputs: Tensors, requests: Sequence[Request]
) -> list[Tensors | ServingError]:
    """Each request's rows. If that fails for the batch, each is tried alone, so that only the guilty one fails."""
    parts: list[Any] = [request.payload for request in requests]
    try:
        answers: list[Tensors | ServingError] = list(model.split(outputs, parts))
        if len(answers) != len(parts):
            raise ModelError("the model returned no output")
        if model.finishes:
            for answer, request in zip(answers, requests, strict=True):
                check_rows(cast(Tensors, answer), request.rows)
                check_declared(cast(Tensors, answer), model.spec.outputs)
        if not model.spec.batched:
            return [{name: array[0] for name, array in cast(Tensors, answer).items()} for answer in answers]
        return answers
    except BaseException as error:
        if len(parts) == 1:
            return [as_model_error(error)]
    answers = []
    row = 0
    for request in requests:
        own = {name: tensor[row : row + request.rows] for name, tensor in outputs.items()}
        answers += split_one_by_one_if_need_be(model, own, [request])
        row += request.rows
    return answers


def check_batch(model: Model, outputs: Tensors, rows: int) -> None:
    """Raises ModelError where a batch of so many rows came back otherwise than declared: cut apart, it would give
    clients the rows of others, or none."""
    check_rows(outputs, rows)
    if not model.finishes:  # what `finish` is given is the module's own affair
        check_declared(outputs, model.spec.outputs)


def check_rows(outputs: Tensors, rows: int) -> None:
    for name, array in outputs.items():
        if array.shape[:1] != (rows,):
            raise ModelError(f"the model returned shape {list(array.shape)} for output {name!r} of {rows} row(s)")


def check_declared(outputs: Tensors, declared: Sequence[TensorSpec]) -> None:
    for tensor in declared:
        array = outputs.get(tensor.name)
        if array is None:
            raise ModelError(f"the model returned no output {tensor.name!r}")
        if array.shape[1:] != tensor.row_shape and not tensor.fits(array.shape):
            raise ModelError(
                f"the model returned shape {tensor.shown(array.shape)} for output {tensor.name!r}, "
                f"declared as {list(tensor.shape)}"
            )


def _as_one_row(tensors: Tensors) -> Tensors:
    """A model without a batch dimension meets the runtime as one whose batches have a single row."""
    return {name: array[np.newaxis] for name, array in tensors.items()}


def as_model_error(error: BaseException) -> ModelError:
    if isinstance(error, ModelError):
        return error
    failure = ModelError(f"the model failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
