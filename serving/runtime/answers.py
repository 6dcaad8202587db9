"""What a forward pass gave, cut into the answers of its requests."""

from collections.abc import Sequence
from typing import Any

from models.base import Model, Tensors
from serving.core.errors import ModelError, ServingError
from serving.core.request import Request


def split_one_by_one_if_need_be(
    model: Model, outputs: Tensors, requests: Sequence[Request]
) -> list[Tensors | ServingError]:
    """Each request's rows. If that fails for the batch, each is tried alone, so that only the guilty one fails."""
    parts: list[Any] = [request.payload for request in requests]
    try:
        return list(model.split(outputs, parts))
    except Exception as error:
        if len(parts) == 1:
            return [as_model_error(error)]
    answers: list[Tensors | ServingError] = []
    row = 0
    for request in requests:
        own = {name: tensor[row : row + request.rows] for name, tensor in outputs.items()}
        answers += split_one_by_one_if_need_be(model, own, [request])
        row += request.rows
    return answers


def as_model_error(error: BaseException) -> ModelError:
    failure = ModelError(f"the model failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
