"""Models that write into their inputs: answers are correct, and the memory of clients does not change."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from models.base import Bucket, Tensors
from models.pytorch.runner import TorchModel, load_module
from models.reference import NumpyModel, echo_spec
from models.writing import frozen

Write = Callable[[torch.Tensor], torch.Tensor]


def through_numpy(x: torch.Tensor) -> torch.Tensor:
    x.numpy()[:] *= 2
    return x


def through_data(x: torch.Tensor) -> torch.Tensor:
    x.data.mul_(2)
    return x


def by_index(x: torch.Tensor) -> torch.Tensor:
    x[x != 0] *= 2
    return x


def into_a_view(x: torch.Tensor) -> torch.Tensor:
    x.view(-1).mul_(2)
    return x


def as_output(x: torch.Tensor) -> torch.Tensor:
    return torch.mul(x, 2, out=x)


def only_large(x: torch.Tensor) -> torch.Tensor:
    return x.mul_(2) if x.max() > 100 else x * 2


WRITES: dict[str, Write] = {
    "in place": lambda x: x.mul_(2),
    "by index": by_index,
    "into a view": into_a_view,
    "as output": as_output,
    "detached": lambda x: x.detach().mul_(2),
    "through numpy": through_numpy,
    "through data": through_data,
}


class Doubling(torch.nn.Module):
    def __init__(self, write: Write) -> None:
        super().__init__()
        self._write = write

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._write(x)


def asked(model: TorchModel | NumpyModel, *requests: Tensors) -> list[list[float]]:
    """Computes the requests in one batch and returns the first value of each row."""
    parts = [model.prepare(dict(request)) for request in requests]
    rows = sum(part.rows for part in parts)
    answers = model.split(model.forward(model.collate(parts, Bucket(rows, parts[0].length))), parts)
    return [answer["y"][:, 0].tolist() for answer in answers]  # type: ignore[call-overload, index]


def request(value: float) -> Tensors:
    """Returns a read-only request, like one from a client."""
    return frozen({"x": np.full((1, 4), value, np.float32)})


@pytest.mark.parametrize("how", WRITES)
def test_a_module_that_writes_into_its_input_answers_the_same_each_time(how: str) -> None:
    model = load_module(echo_spec(), Doubling(WRITES[how]))
    two, three = request(2), request(3)
    for _ in range(3):
        assert asked(model, two) == [[4]]
        assert asked(model, two, three) == [[4], [6]]
    assert (two["x"] == 2).all()
    assert model.sample(1, 1).tensors["x"].flags.writeable, "a made-up request is its own"


def test_a_module_that_writes_for_some_inputs_only_is_seen_the_first_time() -> None:
    model = load_module(echo_spec(), Doubling(only_large))
    assert not model._execution.writes_inputs
    assert asked(model, request(200)) == [[400]]
    assert model._execution.writes_inputs
    large = request(200)
    for _ in range(3):
        assert asked(model, large) == [[400]]


def test_a_module_that_does_not_write_is_given_the_requests_own_memory() -> None:
    model = load_module(echo_spec(), Doubling(lambda x: x))
    one = request(2)
    part = model.prepare(one)
    assert np.shares_memory(model.forward(model.collate([part], Bucket(1, 1)))["y"], one["x"])


class PreparingModule(torch.nn.Module):
    def __init__(self, prepare: Callable[[Tensors], Tensors]) -> None:
        super().__init__()
        self.prepare = prepare

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0

    def example(self) -> Tensors:
        return {"x": np.ones((1, 4), np.float32)}


def with_torch(inputs: Tensors) -> Tensors:
    return {"x": torch.from_numpy(inputs["x"]).mul_(2).numpy()}


def with_numpy(inputs: Tensors) -> Tensors:
    inputs["x"] *= 2
    return inputs


def with_numpy_if_large(inputs: Tensors) -> Tensors:
    return with_numpy(inputs) if inputs["x"].max() > 1 else {"x": inputs["x"] * 2}


@pytest.mark.parametrize("prepare", [with_torch, with_numpy, with_numpy_if_large])
def test_a_prepare_that_writes_into_its_input_answers_the_same_each_time(
    prepare: Callable[[Tensors], Tensors],
) -> None:
    model = load_module(echo_spec(), PreparingModule(prepare))
    two = request(2)
    for _ in range(3):
        assert asked(model, two) == [[4]]
    assert (two["x"] == 2).all()


def doubled(x: np.ndarray) -> tuple[np.ndarray]:
    x *= 2
    return (x,)


def test_a_numpy_model_that_writes_into_its_input_answers_the_same_alone_and_in_a_batch() -> None:
    model = NumpyModel(echo_spec(), doubled)
    model.forward(model.collate([model.sample(1, 1)], Bucket(1, 1)))  # like the warm-up
    own = {"x": np.full((1, 4), 2, np.float32)}
    for one in (request(2), own):
        for _ in range(3):
            assert asked(model, one) == [[4]]
            assert asked(model, one, request(3)) == [[4], [6]]
        assert (one["x"] == 2).all()


def test_an_error_of_the_models_own_stays_what_it_was() -> None:
    def fail(x: np.ndarray) -> tuple[np.ndarray]:
        raise ValueError("unlucky")

    with pytest.raises(ValueError, match=r"^unlucky$"):
        asked(NumpyModel(echo_spec(), fail), request(1))


class Finishing(torch.nn.Module):
    """A module whose `finish` doubles its answer in place and fails for 13."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0

    def finish(self, outputs: Tensors) -> Tensors:
        if outputs["y"][0, 0] == 13:
            raise ValueError("unlucky")
        outputs["y"] *= 2
        return outputs


def test_an_answer_is_finished_once_though_another_of_its_batch_fails() -> None:
    model = load_module(echo_spec(), Finishing())
    parts = [model.prepare(request(value)) for value in (2, 13, 3)]
    first, failed, last = model.split(model.forward(model.collate(parts, Bucket(3, 1))), parts)
    assert isinstance(failed, ValueError)
    assert isinstance(first, dict)
    assert isinstance(last, dict)
    assert (first["y"][0, 0], last["y"][0, 0]) == (4, 6)
