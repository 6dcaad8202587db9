"""Packs the weights of linear layers once, at load, for models on the CPU.

torch keeps weights in the layout of the file, so its BLAS rearranges them in every product. For a batch of ten rows
that is a third of the time. Here oneDNN, which comes with torch, rearranges them once; figures are in
docs/decisions/0028-weights-are-packed-once.md. `torch.compile` turns layers into the same two operators.
"""

import time
from collections.abc import Callable
from copy import copy, deepcopy
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAST_ROWS = 4  # for fewer, torch takes a matrix-vector product, which rearranges nothing
PROBE_ROWS = 16
REPEATS = 5
WORTH_IT = 0.9  # of the time of the plain product: less is not worth the memory
TOLERANCE = 1e-4  # of the largest value: float32 sums in another order
# Packed weights come on top of the plain ones, which small batches and modules that read them need.
MOST_BYTES = 256 << 20

Pays = Callable[[nn.Linear, "PackedLinear"], bool]


def pack_linear_layers(module: nn.Module, pays: Pays | None = None, most_bytes: int = MOST_BYTES) -> int:
    """Makes the linear layers of a frozen module compute with packed weights where that is faster and as exact. Returns
    the number of these layers.

    pays: decides for each shape of weights; None: computes a few rows both ways. most_bytes: of all packed weights.
    """
    pays = pays or is_faster
    decided: dict[torch.Size, bool] = {}
    packed_layers = 0
    with torch.inference_mode():
        for layer in module.modules():
            if not _is_plain(layer):
                continue
            shape, size = layer.weight.shape, layer.weight.nbytes
            if size > most_bytes or not decided.get(shape, True):
                continue
            try:
                packed = PackedLinear(layer)
                if shape not in decided:
                    decided[shape] = pays(layer, packed)
            except (RuntimeError, AttributeError):  # a torch without oneDNN, or a shape that it does not take
                decided[shape] = False
            if decided[shape]:
                layer.forward = packed  # type: ignore[method-assign]
                most_bytes -= size
                packed_layers += 1
    return packed_layers


class PackedLinear:
    """The `forward` of a linear layer with packed weights. For fewer than `LEAST_ROWS` rows, and once the layer has
    other weights than those that were packed, it computes as `nn.Linear` does."""

    def __init__(self, layer: nn.Linear) -> None:
        self._parameters = layer._parameters  # read at each call; `layer.weight` would take ten times as long
        self._weight = layer.weight
        self._content = _content_of(layer.weight)
        self._width = layer.in_features
        self._packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach())

    def __deepcopy__(self, memo: dict[int, Any]) -> "PackedLinear":
        """Returns the `forward` of a copy of the layer, whose weights are not the packed ones."""
        twin = copy(self)
        twin._parameters = deepcopy(self._parameters, memo)
        return twin

    def __call__(self, input: Tensor) -> Tensor:
        weight, bias = self._parameters["weight"], self._parameters["bias"]
        assert weight is not None
        if (
            torch.compiler.is_compiling()  # torch's compiler refuses these operators
            or input.numel() < LEAST_ROWS * self._width
            or weight is not self._weight
            or _content_of(weight) != self._content
            or input.shape[-1] != self._width  # torch's message is clearer than oneDNN's
            or not _is_plain_input(input)
        ):
            return functional.linear(input, weight, bias)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(input, self._packed, bias, "none", [], "")
        return product


def is_faster(layer: nn.Linear, packed: PackedLinear) -> bool:
    """Returns whether the packed layer is as exact as the plain one and faster, on a made-up batch."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(PROBE_ROWS, layer.in_features, generator=generator)
    plain, own = layer(rows), packed(rows)
    if not torch.allclose(plain, own, rtol=0, atol=TOLERANCE * float(plain.abs().max())):
        return False
    return _least_ns(packed, rows) < WORTH_IT * _least_ns(layer, rows)


def _is_plain(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Returns whether this is an `nn.Linear` in float32 whose `forward` and weights nothing replaces. A subclass may
    compute something else, and weights that are not a parameter are made anew for each call."""
    if type(layer) is not nn.Linear or "forward" in vars(layer):
        return False
    weight = layer._parameters.get("weight")
    return weight is not None and weight.dtype is torch.float32 and weight.device.type == "cpu"


def _content_of(weight: Tensor) -> tuple[int, int]:
    """Returns where the values are and how often they were written to: values that stay have the same."""
    return weight.data_ptr(), weight._version


def _is_plain_input(input: Tensor) -> bool:
    return (
        input.dtype is torch.float32
        and input.layout is torch.strided
        and not input.is_nested
        and not torch.is_autocast_enabled("cpu")
        and not torch.is_grad_enabled()
    )


def _least_ns(compute: Callable[[Tensor], Tensor], rows: Tensor) -> int:
    """Returns the shortest CPU time of a few calls: other work on the machine only adds to a call."""
    times_ns = []
    for _ in range(REPEATS):
        began_ns = time.thread_time_ns()
        compute(rows)
        times_ns.append(time.thread_time_ns() - began_ns)
    return min(times_ns)
