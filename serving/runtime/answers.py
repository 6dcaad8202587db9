"""Where the user's own methods meet requests: what `prepare` makes of one, and what a forward pass gave, cut into the
answers of its requests.

What those methods raise is caught whatever it is. Much of this runs in threads that a SystemExit would end,
and then nobody would be told.
"""

from collections.abc import Sequence
from typing import Any, cast

from models.base import InvalidInput as UnusableInput
from models.base import Model, Prepared, Tensors
from models.spec import TensorSpec
from serving.core.errors import InvalidInput, ModelError, ServingError
from serving.core.request import Request


def prepared(model: Model, inputs: Tensors) -> Prepared | ServingError:
    """The request as it is collated, or why it cannot be."""
    try:
        return model.prepare(inputs)
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
        if array.shape[1:] != tensor.shape[1:] and not tensor.fits(array.shape):
            raise ModelError(
                f"the model returned shape {list(array.shape)} for output {tensor.name!r}, "
                f"declared as {list(tensor.shape)}"
            )


def as_model_error(error: BaseException) -> ModelError:
    if isinstance(error, ModelError):
        return error
    failure = ModelError(f"the model failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
