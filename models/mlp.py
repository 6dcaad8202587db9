"""The network of the benchmarks: so small that its throughput depends mostly on batching."""

import torch

from models.spec import ModelSpec, TensorSpec

WIDTH = 1024
CLASSES = 10

SPEC = ModelSpec(
    name="mlp",
    factory="models.mlp:MLP",
    inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, WIDTH)),),
    outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, CLASSES)),),
    description="Seven linear layers with seeded weights.",
)


class MLP(torch.nn.Sequential):
    """A perceptron of `hidden_layers` pairs of Linear and ReLU, and a final Linear to `classes`. Equal seeds give equal
    weights."""

    def __init__(self, width: int = WIDTH, hidden_layers: int = 6, classes: int = CLASSES, seed: int = 0) -> None:
        torch.manual_seed(seed)
        layers: list[torch.nn.Module] = []
        for _ in range(hidden_layers):
            layers += [torch.nn.Linear(width, width), torch.nn.ReLU()]
        super().__init__(*layers, torch.nn.Linear(width, classes))
