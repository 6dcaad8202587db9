"""Loading and running objects with a method `generate`."""

import asyncio
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import models
from models.loading import ModelNotLoadable, load_generating
from models.pytorch.checking import SpecMismatch
from models.pytorch.generating import load_generating_module
from models.reference import noop_spec, repeat_spec

CLOSED: list[str] = []


class Powers(torch.nn.Module):
    """A generator that multiplies its input by a weight in each step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(2.0))

    def generate(self, inputs):
        value = torch.from_numpy(inputs["in"].astype(np.float32)).to(self.device)
        try:
            while True:
                value = value * self.weight
                if value.max() > 100:
                    raise ValueError("too large")
                yield {"out": value.cpu().numpy(), "tracked": value.requires_grad}
        finally:
            CLOSED.append("closed")


def test_a_module_generates_on_its_device_and_without_gradients() -> None:
    model = load_generating(repeat_spec(factory=f"{__name__}:Powers"))
    answers = model.generate({"in": np.array([[3]], np.int32)})
    assert [next(answers) for _ in range(2)] == [{"out": 6, "tracked": False}, {"out": 12, "tracked": False}]
    answers.close()
    assert CLOSED == ["closed"]
    with pytest.raises(ValueError, match="too large"):
        list(model.generate({"in": np.array([[30]], np.int32)}))
    assert model.device == "cpu"
    model.close()


class Awaiting(Powers):
    """An async generator like `Powers`, with a wait before each answer."""

    async def generate(self, inputs):
        value = torch.from_numpy(inputs["in"].astype(np.float32))
        try:
            for _ in range(2):
                await asyncio.sleep(0)
                value = value * self.weight
                yield {"out": value.numpy(), "tracked": value.requires_grad}
            raise ValueError("too large")
        finally:
            CLOSED.append("awaited")


def test_a_module_that_awaits_computes_without_gradients_and_leaves_others_theirs() -> None:
    model = load_generating(repeat_spec(factory=f"{__name__}:Awaiting"))
    assert model.waits
    modes: list[bool] = []

    async def read() -> list:
        answers = model.generate({"in": np.array([[3]], np.int32)})
        found = [await anext(answers) for _ in range(2)]
        with pytest.raises(ValueError, match="too large"):
            await anext(answers)
        return found

    async def look() -> None:
        for _ in range(10):
            modes.append(torch.is_inference_mode_enabled())
            await asyncio.sleep(0)

    async def story() -> None:
        first, second, _ = await asyncio.gather(read(), read(), look())
        assert first == second == [{"out": 6, "tracked": False}, {"out": 12, "tracked": False}]

    asyncio.run(story())
    assert not any(modes)
    assert CLOSED[-2:] == ["awaited", "awaited"]


def test_the_countdown_of_the_readme_counts_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(models.__file__).parent / "README.md").read_text()
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "yield" in block)
    (tmp_path / "countdown_of_the_readme.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    model = load_generating(repeat_spec(factory="countdown_of_the_readme:Countdown"))
    assert [int(answer["number"][0, 0]) for answer in model.generate({"start": np.array([[3]])})] == [3, 2, 1]


def test_what_cannot_generate_is_not_loaded_as_if_it_could() -> None:
    with pytest.raises(ModelNotLoadable, match="without a method `generate`"):
        load_generating(noop_spec(decoupled=True))


class Hollow(torch.nn.Module):
    """A module whose layer has no weights."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def generate(self, inputs):
        yield {}


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (lambda: torch.nn.LazyLinear(3), "lazy layers have no weights yet: load them, or call the module once"),
        (lambda: torch.nn.Linear(3, 3, device="meta"), "weights on the device `meta` have no values"),
    ],
)
def test_a_module_without_weights_is_refused_since_nothing_says_how_to_make_them(layer, expected: str) -> None:
    with pytest.raises(SpecMismatch, match=expected):
        load_generating_module(repeat_spec(), Hollow(layer()))


def test_a_generator_that_needs_gradients_gets_an_error_with_advice() -> None:
    class Climbing(Powers):
        def generate(self, inputs):
            x = torch.ones(1, 1)
            yield {"out": torch.autograd.grad((x * self.weight).sum(), x)[0]}

    model = load_generating_module(repeat_spec(), Climbing())
    with pytest.raises(RuntimeError, match=r"with torch\.inference_mode\(False\), torch\.enable_grad\(\)"):
        next(iter(model.generate({})))
