"""The numpy models, and loading a model from its factory."""

import subprocess
import sys
from dataclasses import replace
from threading import Thread

import numpy as np
import pytest

from models import reference
from models.base import Bucket, Model
from models.loading import ModelNotLoadable, load_model, load_models
from models.spec import ModelSpec, Resources, TensorSpec
from models.testing import assert_batched_equals_unbatched

ALL_SPECS = [
    reference.noop_spec(),
    reference.echo_spec(),
    reference.linear_spec(),
    reference.slow_spec(options={"base_ms": 0, "per_row_ms": 0}),
]


def answer(model: Model, values: list[float]) -> list[float]:
    part = model.prepare({"x": np.array(values, np.float32).reshape(-1, 1)})
    outputs = model.forward(model.collate([part], Bucket(part.rows, 1)))
    return model.split(outputs, [part])[0]["y"][:, 0].tolist()


@pytest.mark.parametrize("spec", ALL_SPECS, ids=lambda spec: spec.name)
def test_a_batched_answer_equals_the_unbatched_one(spec: ModelSpec) -> None:
    assert_batched_equals_unbatched(load_model(spec))


def test_echo_answers_padded_requests_at_their_own_length() -> None:
    tensor = TensorSpec(name="x", datatype="INT32", shape=(-1, -1), pad=-1)
    model = load_model(reference.echo_spec(inputs=(tensor,), outputs=(tensor,)))
    requests = [
        {"x": np.arange(rows * length, dtype=np.int32).reshape(rows, length)} for rows, length in ((1, 5), (2, 20))
    ]
    assert_batched_equals_unbatched(model, requests)


def test_slow_fails_only_for_the_configured_value() -> None:
    model = load_model(reference.slow_spec(options={"base_ms": 0, "per_row_ms": 0, "raise_on_value": 13}))
    assert answer(model, [1, 2]) == [1, 2]
    with pytest.raises(ValueError, match="told to fail on 13"):
        answer(model, [1, 13])


def test_a_hanging_forward_pass_ends_when_the_model_is_closed() -> None:
    model = load_model(reference.slow_spec(options={"base_ms": 0, "per_row_ms": 0, "hang_on_value": 13}))
    ended: list[str] = []

    def hang() -> None:
        try:
            answer(model, [13])
        except RuntimeError as error:
            ended.append(str(error))

    thread = Thread(target=hang)
    thread.start()
    model.close()
    thread.join(timeout=10)
    assert ended == ["closed while hanging"]


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("models.nothing:noop", "no module is named 'models.nothing'"),
        ("models.reference:nothing", "models.reference has no 'nothing'"),
        ("models.reference:__doc__", "a str cannot be called"),
        ("builtins:dict", "made a dict: neither a torch.nn.Module nor a models.base.Model"),
    ],
)
def test_a_factory_that_makes_no_model_is_named(factory: str, words: str) -> None:
    with pytest.raises(ModelNotLoadable, match=words):
        load_model(reference.noop_spec(factory=factory))


def test_options_that_the_factory_does_not_take_are_named() -> None:
    with pytest.raises(ModelNotLoadable, match=r"does not take the options .*depth"):
        load_model(reference.noop_spec(options={"depth": 3}))


def test_a_numpy_model_is_loaded_without_torch() -> None:
    program = "import sys; from models import loading, reference; loading.load_model(reference.noop_spec())"
    subprocess.run([sys.executable, "-c", f"{program}; assert 'torch' not in sys.modules"], check=True)


def test_a_batch_that_mixes_rows_up_is_found() -> None:
    def compute(x: np.ndarray) -> tuple[np.ndarray]:
        return (x - x.mean(axis=0),)

    with pytest.raises(AssertionError, match=r"request 0, together .*'y' is off by"):
        assert_batched_equals_unbatched(reference.NumpyModel(reference.echo_spec(), compute))


def on_gpu(spec: ModelSpec, lane_index: int, missing: bool = False) -> Model:
    """Returns a model of a user's own that reports a GPU as its device."""
    model = reference.noop(spec)
    model.device = "cpu" if missing else f"cuda:{lane_index}"
    return model


def test_a_model_that_asked_for_two_gpus_is_loaded_on_each_and_once_where_it_runs_on_the_cpu() -> None:
    spec = reference.noop_spec(factory=f"{__name__}:on_gpu", resources=Resources(gpus=2))
    assert [model.device for model in load_models(spec)] == ["cuda:0", "cuda:1"]
    assert [model.device for model in load_models(replace(spec, options={"missing": True}))] == ["cpu"]
    assert [model.device for model in load_models(replace(spec, resources=Resources(gpus=0.5)))] == ["cuda:0"]
