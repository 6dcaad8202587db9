"""Linear layers with packed weights: the same answers, and never those of weights that are no longer there."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from models.base import Bucket
from models.mlp import MLP, SPEC
from models.pytorch.packing import LEAST_ROWS, PackedLinear, is_faster, pack_linear_layers
from models.pytorch.runner import load_module

WIDTH = 64
ROWS = torch.randn(2 * LEAST_ROWS, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def always(layer: nn.Linear, packed: PackedLinear) -> bool:
    return True


def a_layer(**fields: Any) -> nn.Linear:
    with torch.inference_mode(False):
        torch.manual_seed(0)
        return nn.Linear(WIDTH, 48, **fields).requires_grad_(False)


def is_packed(layer: nn.Module) -> bool:
    return isinstance(vars(layer).get("forward"), PackedLinear)


@pytest.mark.parametrize("rows", [0, 1, LEAST_ROWS - 1, LEAST_ROWS, 2 * LEAST_ROWS])
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_layer_answers_as_the_plain_one(rows: int, bias: bool) -> None:
    layer = a_layer(bias=bias)
    plain = layer(ROWS[:rows])
    assert pack_linear_layers(layer, always) == 1
    torch.testing.assert_close(layer(ROWS[:rows]), plain)


@pytest.mark.parametrize(
    "shaped",
    [
        lambda rows: rows.reshape(2, LEAST_ROWS, WIDTH),
        lambda rows: rows.T.contiguous().T,
        lambda rows: rows[::2].expand(3, -1, -1),
        lambda rows: rows.double().float(),
    ],
)
def test_inputs_of_any_layout_are_taken(shaped: Callable[[torch.Tensor], torch.Tensor]) -> None:
    layer = a_layer()
    plain = layer(shaped(ROWS))
    pack_linear_layers(layer, always)
    assert layer(shaped(ROWS)).shape == plain.shape
    torch.testing.assert_close(layer(shaped(ROWS)), plain)


def test_an_input_of_another_width_gets_the_message_of_torch() -> None:
    layer = a_layer()
    pack_linear_layers(layer, always)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        layer(torch.zeros(64, 32))


def test_weights_that_change_after_packing_are_used() -> None:
    layer = a_layer()
    pack_linear_layers(layer, always)
    layer.weight.mul_(2)
    torch.testing.assert_close(layer(ROWS), nn.functional.linear(ROWS, layer.weight, layer.bias))
    pack_linear_layers(layer, always)
    layer.weight.data = torch.zeros(48, WIDTH)
    torch.testing.assert_close(layer(ROWS), layer.bias.expand(len(ROWS), -1))
    layer.weight = nn.Parameter(torch.ones(48, WIDTH), requires_grad=False)
    torch.testing.assert_close(layer(ROWS), nn.functional.linear(ROWS, torch.ones(48, WIDTH), layer.bias))


def test_a_copy_of_a_packed_layer_has_its_own_weights() -> None:
    layer = a_layer()
    pack_linear_layers(layer, always)
    plain = layer(ROWS)
    with torch.inference_mode(False):
        copied = deepcopy(layer)
        copied.weight.mul_(0)
    torch.testing.assert_close(copied(ROWS), layer.bias.expand(len(ROWS), -1))
    torch.testing.assert_close(layer(ROWS), plain)


def test_a_bias_that_changes_after_packing_is_used() -> None:
    layer = a_layer()
    before = layer(ROWS)
    pack_linear_layers(layer, always)
    layer.bias.add_(1)
    torch.testing.assert_close(layer(ROWS), before + 1)


def test_autocast_and_gradients_are_left_to_torch() -> None:
    layer = a_layer()
    pack_linear_layers(layer, always)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(ROWS).dtype is torch.bfloat16
    with torch.inference_mode(False):
        rows = ROWS.clone().requires_grad_()
        layer(rows).sum().backward()
        assert rows.grad is not None


def test_a_module_that_compiles_its_layers_compiles_the_plain_product() -> None:
    layer, seen = a_layer(), []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    compiled = torch.compile(layer, backend=backend)
    pack_linear_layers(layer, always)
    torch.testing.assert_close(compiled(ROWS), layer(ROWS))
    assert any("linear" in target for target in seen)
    assert not any("mkldnn" in target for target in seen)


def test_hooks_of_a_packed_layer_still_run() -> None:
    layer, seen = a_layer(), []
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    pack_linear_layers(layer, always)
    layer(ROWS)
    assert seen == [(len(ROWS), 48)]


class Doubled(nn.Linear):
    """A subclass that computes something else."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(input)


def test_layers_that_are_more_than_a_product_stay_as_they_are() -> None:
    with torch.inference_mode(False):
        pruned = prune.l1_unstructured(nn.Linear(WIDTH, 8), "weight", amount=0.5)
        normed = parametrizations.weight_norm(nn.Linear(WIDTH, 8))
        several = nn.ModuleList([Doubled(WIDTH, 8), pruned, normed, nn.Linear(WIDTH, 8).bfloat16(), nn.Conv1d(1, 1, 1)])
    assert pack_linear_layers(several, always) == 0


def test_a_layer_that_does_not_gain_stays_as_it_is_and_is_tried_once_per_shape() -> None:
    asked = []

    def never(layer: nn.Linear, packed: PackedLinear) -> bool:
        asked.append(layer.weight.shape)
        return False

    with torch.inference_mode(False):
        module = nn.Sequential(a_layer(), a_layer(), nn.Linear(48, 8))
    assert pack_linear_layers(module, never) == 0
    assert asked == [(48, WIDTH), (8, 48)]
    assert not any(map(is_packed, module))


def test_packed_weights_stay_within_their_bytes() -> None:
    module = nn.Sequential(a_layer(), a_layer(), a_layer())
    assert pack_linear_layers(module, always, most_bytes=2 * module[0].weight.nbytes) == 2
    assert [is_packed(layer) for layer in module] == [True, True, False]


def test_a_product_that_is_wrong_is_not_worth_its_speed() -> None:
    layer = a_layer()
    packed = PackedLinear(layer)
    layer.weight = nn.Parameter(-layer.weight, requires_grad=False)
    stale = lambda rows: torch.ops.mkldnn._linear_pointwise(rows, packed._packed, layer.bias, "none", [], "")  # noqa: E731
    assert not is_faster(layer, stale)  # type: ignore[arg-type]


def test_a_torch_that_cannot_pack_serves_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    layer = a_layer()
    assert pack_linear_layers(layer, always) == 0
    assert layer(ROWS).shape == (len(ROWS), 48)


def test_settings_that_allow_no_variants_pack_nothing() -> None:
    with torch.inference_mode(False):
        models = [
            load_module(replace(SPEC, **fields), MLP()) for fields in ({"execution": "eager"}, {"precision": "bf16"})
        ]
    assert [model.facts()["packed_linear_layers"] for model in models] == [0, 0]


def test_a_served_model_answers_as_its_module() -> None:
    with torch.inference_mode(False):
        model = load_module(SPEC, MLP())
        part = model.sample(8, 1)
        outputs = model.forward(model.collate([part], Bucket(8, 1)))
    torch.testing.assert_close(torch.from_numpy(outputs["y"]), MLP()(torch.from_numpy(part.tensors["x"])))
