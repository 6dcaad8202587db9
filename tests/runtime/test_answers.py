"""Tests that outputs that differ from their declaration, and unusual exceptions, fail only their own request."""

import asyncio
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from models.base import Collected, Tensors
from models.generating import PlainGenerating
from models.reference import NumpyModel, echo_spec, words_spec
from models.spec import TensorSpec
from serving.core.errors import ModelError
from serving.core.outcome import Completed, Failed, Outcome
from serving.runtime.checking import check_declared
from serving.runtime.engine import Engine
from serving.runtime.generation import GeneratingEngine
from serving.testing.models import AsynchronousModel, ScriptedModel, Staged

ODD = 13.0
Spoil = Callable[[np.ndarray], Tensors]

SPOILED: dict[str, tuple[Spoil, str]] = {
    "no output": (lambda sums: {}, "the model returned no output 'sum'"),
    "another output": (lambda sums: {"other": sums}, "the model returned no output 'sum'"),
    "too few rows": (lambda sums: {"sum": sums[:0]}, "returned shape [0, 1] for output 'sum' of 1 row(s)"),
    "too many rows": (lambda sums: {"sum": np.tile(sums, (2, 1))}, "returned shape [2, 1] for output 'sum' of 1 row"),
    "no rows at all": (lambda sums: {"sum": np.float32(0)}, "returned shape [] for output 'sum' of 1 row(s)"),
    "other sizes": (lambda sums: {"sum": np.tile(sums, 3)}, "returned shape [1, 3] for output 'sum', declared as"),
    "nothing": (lambda sums: None, "the model returned a NoneType, not its outputs by name"),  # type: ignore[return-value, arg-type]
    "no names": (lambda sums: [sums], "the model returned a list, not its outputs by name"),  # type: ignore[return-value, arg-type]
    "no array": (lambda sums: {"sum": sums.tolist()}, "returned a list for output 'sum', not an array"),
    "none for an output": (lambda sums: {"sum": None}, "returned a NoneType for output 'sum', not an array"),
    "another type": (lambda sums: {"sum": sums.astype(np.float64)}, "returned FP64 for output 'sum', declared as FP32"),
    "another rank": (lambda sums: {"sum": sums[:, 0]}, "returned shape [1] for output 'sum', declared as [-1, 1]"),
}


class SpoiledModel(ScriptedModel):
    """Returns spoiled outputs for batches that contain the value 13."""

    def __init__(self, spoil: Spoil) -> None:
        super().__init__()
        self._spoil = spoil

    def forward(self, staged: object) -> Tensors:
        assert isinstance(staged, Staged)
        sums = super().forward(staged)["sum"]
        return self._spoil(sums) if (staged.x == ODD).any() else {"sum": sums}


class SpoiledAsynchronousModel(AsynchronousModel):
    def __init__(self, spoil: Spoil) -> None:
        super().__init__()
        self._spoil = spoil

    def collect(self, launched: object) -> Collected:
        assert isinstance(launched, Staged)
        sums = super().collect(launched).outputs["sum"]
        return Collected(self._spoil(sums) if (launched.x == ODD).any() else {"sum": sums})


class FinishingModel(ScriptedModel):
    """Returns spoiled outputs from its `finish` for rows that contain the value 13."""

    finishes = True

    def __init__(self, spoil: Spoil) -> None:
        super().__init__(on_split=lambda sums: None)
        self._spoil = spoil

    def split(self, outputs: Tensors, parts: object) -> list[Tensors]:
        answers = super().split(outputs, parts)  # type: ignore[arg-type]
        return [self._spoil(one["sum"]) if one["sum"][0, 0] == 4 * ODD else one for one in answers]


def outcomes(model: ScriptedModel, *values: float) -> list[Outcome]:
    """Submits requests with these values together and returns their outcomes, within a minute. Afterwards no request
    may be open."""

    async def ask() -> list[Outcome]:
        async with Engine([model], batches_per_lane=1) as engine:
            rows = [np.full((1, 4), value, np.float32) for value in values]
            async with asyncio.timeout(60):
                found = await asyncio.gather(*(engine.submit({"x": row}, rows=1) for row in rows))
            engine.check_health()
        assert engine.ledger.is_empty()
        engine.ledger.check()
        return found

    return asyncio.run(ask())


def assert_only_the_odd_fails(model: ScriptedModel, said: str) -> None:
    first, odd, last = outcomes(model, 1.0, ODD, 2.0)
    assert isinstance(first, Completed)
    assert isinstance(last, Completed)
    assert isinstance(odd, Failed)
    assert isinstance(odd.error, ModelError)
    assert said in str(odd.error)


@pytest.mark.parametrize("case", SPOILED)
@pytest.mark.parametrize("kind", [SpoiledModel, SpoiledAsynchronousModel, FinishingModel])
def test_an_output_that_is_not_as_declared_fails_its_own_request(kind: type[SpoiledModel], case: str) -> None:
    spoil, said = SPOILED[case]
    assert_only_the_odd_fails(kind(spoil), said)


@pytest.mark.parametrize("leaves", [SystemExit(3), KeyboardInterrupt(), StopIteration("no more")])
@pytest.mark.parametrize("where", ["prepare", "on_launch", "on_forward", "on_split"])
def test_whatever_a_model_raises_its_threads_go_on(where: str, leaves: BaseException) -> None:
    def leave(*given: object) -> None:
        found = given[-1]
        values = found["x"] if isinstance(found, dict) else found
        if (np.asarray(values) == (4 * ODD if where == "on_split" else ODD)).any():
            raise leaves

    kind = AsynchronousModel if where == "on_launch" else ScriptedModel
    model = kind(**{where: leave})
    model.finishes = where == "on_split"
    assert_only_the_odd_fails(model, f"the model failed: {type(leaves).__name__}")


TEXTS: dict[str, tuple[object, str]] = {
    "a number": (7, "a int as an element of output 'word', declared as BYTES"),
    "a numpy number": (np.int64(7), "a int64 as an element of output 'word'"),
    "none": (None, "a NoneType as an element of output 'word'"),
    "a float": (1.5, "a float as an element"),
    "a truth": (True, "a bool as an element"),
    "a list": ([b"a"], "a list as an element"),
    "half a character": ("\ud800", "a text for output 'word' that cannot be sent: surrogates not allowed"),
}
WORD = TensorSpec(name="word", datatype="BYTES", shape=(-1, 1))


def words_of(element: object) -> np.ndarray:
    words = np.empty((1, 1), object)
    words[0, 0] = element
    return words


@pytest.mark.parametrize("case", TEXTS)
def test_an_element_that_is_no_text_is_the_models_error_and_is_counted_as_one(case: str) -> None:
    element, said = TEXTS[case]

    def compute(x: np.ndarray) -> tuple[np.ndarray]:
        return (np.concatenate([words_of(element if value == ODD else b"fine") for value in x[:, 0]]),)

    async def story() -> None:
        spec = echo_spec(outputs=(WORD,))
        async with Engine([NumpyModel(spec, compute)]) as engine:
            fine, odd = await asyncio.gather(
                *(engine.submit({"x": np.full((1, 4), value, np.float32)}, rows=1) for value in (1.0, ODD))
            )
            assert type(fine) is Completed
            assert isinstance(odd, Failed)
            assert isinstance(odd.error, ModelError)
            assert said in str(odd.error)
            assert (engine.statistics().success.count, engine.statistics().fail.count) == (1, 1)

    asyncio.run(story())


@pytest.mark.parametrize("case", TEXTS)
def test_an_element_that_is_no_text_fails_a_generation(case: str) -> None:
    element, said = TEXTS[case]

    class Spoiled:
        def generate(self, inputs: Tensors) -> Iterator[Tensors]:
            yield {"word": words_of("fine")}
            yield {"word": words_of(element)}

    async def story() -> None:
        async with GeneratingEngine(PlainGenerating(words_spec(), Spoiled())) as engine:
            answers = engine.generate({})
            assert len([answer async for answer in answers]) == 1
            assert isinstance(answers.outcome, Failed)
            assert said in str(answers.outcome.error)

    asyncio.run(story())


@pytest.mark.parametrize("answer", [None, [], {}, {"word": "text"}, {"word": np.array([[1]])}], ids=repr)
def test_an_answer_that_is_not_as_declared_fails_its_generation(answer: object) -> None:
    class Spoiled:
        def generate(self, inputs: Tensors) -> Iterator[object]:
            yield answer

    async def story() -> None:
        async with GeneratingEngine(PlainGenerating(words_spec(), Spoiled())) as engine:
            answers = engine.generate({})
            assert [answer async for answer in answers] == []
            assert isinstance(answers.outcome, Failed)
            assert isinstance(answers.outcome.error, ModelError)
            assert str(answers.outcome.error).startswith("the model returned ")

    asyncio.run(story())


@pytest.mark.parametrize("dtype", [">f4", "<f4"])
def test_either_order_of_bytes_is_a_float(dtype: str) -> None:
    check_declared({"sum": np.zeros((1, 1), dtype)}, ScriptedModel().spec.outputs)
    check_declared({"word": np.array([["a"]])}, (WORD,))
    check_declared({"word": np.array([[b"\xff"]])}, (WORD,))
