"""Invalid specs and their error messages."""

from typing import Any

import pytest

from models.spec import Limits, ModelSpec, Resources, TensorSpec

X = TensorSpec(name="x", datatype="FP32", shape=(-1, 4))
Y = TensorSpec(name="y", datatype="FP32", shape=(-1, 1))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": ""}, "name"),
        ({"datatype": "FLOAT"}, "datatype: 'FLOAT'"),
        ({"shape": ()}, "must begin with -1"),
        ({"shape": (1, 4)}, "must begin with -1"),
        ({"shape": (-1, 0)}, "sizes are positive"),
        ({"shape": (-1, 10**30)}, "sizes are at most 2147483647"),
        ({"shape": (-1, 4), "pad": 0}, "only a variable second dimension"),
        ({"shape": (-1,), "pad": 0}, "only a variable second dimension"),
    ],
)
def test_a_tensor_says_what_is_wrong_with_it(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TensorSpec(**{"name": "x", "datatype": "FP32", "shape": (-1, -1)} | fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": ""}, "name and version"),
        ({"factory": "package.module"}, "package.module:attribute"),
        ({"factory": ":attribute"}, "package.module:attribute"),
        ({"inputs": ()}, "at least one"),
        ({"outputs": (Y, Y)}, "same name"),
        ({"latency_budget_ms": 0.0}, "latency_budget_ms"),
        ({"replicas": 0}, "replicas"),
        ({"labels": {"z": ("cat",)}}, "no output is named z"),
    ],
)
def test_a_model_says_what_is_wrong_with_it(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ModelSpec(**{"name": "m", "factory": "a.b:c", "inputs": (X,), "outputs": (Y,)} | fields)


@pytest.mark.parametrize(
    ("shape", "pad", "alike"),
    [
        ((-1, 4), None, True),
        ((-1,), None, True),
        ((-1, -1), None, False),
        ((-1, -1), 0, True),
        ((-1, -1, 3), 0, True),
        ((-1, -1, -1), 0, False),
    ],
)
def test_rows_are_alike_where_their_shape_is_fixed_or_padded(
    shape: tuple[int, ...], pad: int | None, alike: bool
) -> None:
    assert TensorSpec(name="x", datatype="FP32", shape=shape, pad=pad).rows_alike is alike


def test_limits_and_resources_are_positive() -> None:
    for fields in ({"max_batch_rows": 0}, {"max_queue_requests": 0}, {"forward_timeout_s": 0}, {"max_memory_mb": 0}):
        with pytest.raises(ValueError, match=next(iter(fields))):
            Limits(**fields)  # type: ignore[arg-type]
    for resources in ({"cpus": -1}, {"gpus": -1}, {"gpus": 1.5}):
        with pytest.raises(ValueError, match=next(iter(resources))):
            Resources(**resources)
