"""Four models of well-known architectures with random weights, and requests for them. Plain torch; no file is read."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from models.spec import Limits, ModelSpec, Resources, TensorSpec

PIXELS = 224
WORDS = 30_000
LONGEST = 128  # words in a sentence
SHORTEST = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model to measure.

    request: one client's tensors.
    tolerance: how far an answer may differ in float32, as a share of the spread of answers among requests (2-norm):
        another batch size may use another kernel, which adds in another order.
    """

    name: str
    spec: ModelSpec
    request: Callable[[np.random.Generator], dict[str, np.ndarray]]
    tolerance: float
    about: str


class MLP(nn.Sequential):
    """A perceptron in float32, so small that launching takes longer than computing."""

    def __init__(self, width: int, hidden_layers: int) -> None:
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for _ in range(hidden_layers):
            layers += [nn.Linear(width, width), nn.ReLU()]
        super().__init__(*layers, nn.Linear(width, 10))


class Bottleneck(nn.Module):
    def __init__(self, inner: int, width: int, outer: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(inner, width, 1), nn.ReLU(),
            *_convolution(width, width, 3, stride), nn.ReLU(),
            *_convolution(width, outer, 1),
        )  # fmt: skip
        same = inner == outer and stride == 1
        self.side = nn.Identity() if same else nn.Sequential(*_convolution(inner, outer, 1, stride))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.body(x) + self.side(x))


class Convnet(nn.Module):
    """A network with ResNet-50's architecture for `blocks` (3, 4, 6, 3) and width 64. Takes pixels as bytes."""

    def __init__(self, blocks: tuple[int, ...], width: int, half: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.dtype = torch.bfloat16 if half else torch.float32
        stages: list[nn.Module] = [*_convolution(3, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        inner = width
        for index, count in enumerate(blocks):
            outer = 4 * width << index
            for number in range(count):
                stages.append(Bottleneck(inner, width << index, outer, 2 if index and not number else 1))
                inner = outer
        self.body = nn.Sequential(*stages)
        self.head = nn.Linear(inner, 1000)
        self.to(self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = pixels.permute(0, 3, 1, 2).to(self.dtype) / 127.5 - 1.0  # a view, so channels stay last
        x = self.body(x).mean((2, 3))
        result: torch.Tensor = self.head(x).float()
        return result


class Attention(nn.Module):
    """An attention layer that normalises first, as in ViT; BERT's order costs the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm_after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.into, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.back = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        rows, length, width = x.shape
        q, k, v = self.into(self.norm(x)).view(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.out(seen.transpose(1, 2).reshape(rows, length, width))
        result: torch.Tensor = x + self.back(functional.gelu(self.wide(self.norm_after(x))))
        return result


class Encoder(nn.Module):
    """A network with BERT-base's architecture for 12 layers of 768; padding (word 0) is masked."""

    max_length = LONGEST

    def __init__(self, layers: int, width: int, heads: int, half: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.places = nn.Embedding(WORDS, width), nn.Embedding(LONGEST, width)
        self.layers = nn.ModuleList(Attention(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.to(torch.bfloat16 if half else torch.float32)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        real = ids != 0
        x = self.words(ids) + self.places.weight[: ids.shape[1]]
        mask = real[:, None, None, :].expand(-1, -1, ids.shape[1], -1)
        for layer in self.layers:
            x = layer(x, mask)
        kept = self.norm(x).float() * real[:, :, None]
        result: torch.Tensor = kept.sum(1) / real.sum(1, keepdim=True).clamp(min=1)
        return result

    def example(self) -> dict[str, np.ndarray]:
        return {"ids": np.arange(1, SHORTEST + 1, dtype=np.int64)[None]}


class Transformer(nn.Module):
    """A network with ViT-B/16's architecture for 12 layers of 768. Takes pixels as bytes."""

    def __init__(self, layers: int, width: int, heads: int, pixels: int, half: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.dtype = torch.bfloat16 if half else torch.float32
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.first = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.places = nn.Parameter(torch.randn(1, (pixels // 16) ** 2 + 1, width) * 0.02)
        self.layers = nn.ModuleList(Attention(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)
        self.to(self.dtype)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = self.patches(pixels.permute(0, 3, 1, 2).to(self.dtype) / 127.5 - 1.0)
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(x.shape[0], -1, -1), x], 1) + self.places
        for layer in self.layers:
            x = layer(x, None)
        result: torch.Tensor = self.head(self.norm(x[:, 0])).float()
        return result


def subjects(*, small: bool, largest_rows: int, gpus: float) -> dict[str, Subject]:
    """Returns the models by name. small: the same architectures at sizes that a CPU computes in milliseconds, in
    float32."""
    half = not small
    pixels = 32 if small else PIXELS
    width = 128 if small else 1024
    layers, attention = (2, {"width": 64, "heads": 4}) if small else (12, {"width": 768, "heads": 12})
    blocks, channels = ((1, 1), 16) if small else ((3, 4, 6, 3), 64)
    image = TensorSpec(name="pixels", datatype="UINT8", shape=(-1, pixels, pixels, 3))

    def photograph(random: np.random.Generator) -> dict[str, np.ndarray]:
        coarse = random.integers(0, 256, (1, pixels // 16, pixels // 16, 3), np.uint8)
        return {"pixels": coarse.repeat(16, 1).repeat(16, 2)}

    def sentence(random: np.random.Generator) -> dict[str, np.ndarray]:
        return {"ids": random.integers(1, WORDS, (1, sentence_length(random)), np.int64)}

    def numbers(random: np.random.Generator) -> dict[str, np.ndarray]:
        return {"x": random.standard_normal((1, width), np.float32)}

    def subject(
        kind: type[nn.Module], request: Any, tolerance: float, about: str, inputs: TensorSpec, size: int, **options: Any
    ) -> Subject:
        spec = ModelSpec(
            name=kind.__name__.lower(),
            factory=f"benchmarks.gpu.models:{kind.__name__}",
            options=options,
            inputs=(inputs,),
            outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, size)),),
            limits=Limits(max_batch_rows=largest_rows, max_queue_requests=1 << 16),
            resources=Resources(cpus=1.0 if gpus else 64.0, gpus=gpus),
        )
        return Subject(name=spec.name, spec=spec, request=request, tolerance=tolerance, about=about)

    kind = "bfloat16" if half else "float32"
    found = [
        subject(
            MLP, numbers, 1e-4, f"7 linear layers of {width}, float32",
            TensorSpec(name="x", datatype="FP32", shape=(-1, width)), 10, width=width, hidden_layers=6,
        ),
        subject(
            Convnet, photograph, 1e-4, f"ResNet-50's shape, {kind}" if half else "a small ResNet, float32",
            image, 1000, blocks=blocks, width=channels, half=half,
        ),
        subject(
            Encoder, sentence, 1e-4, f"BERT-base's shape, {kind}, {SHORTEST} to {LONGEST} words"
            if half else "a small BERT, float32",
            TensorSpec(name="ids", datatype="INT64", shape=(-1, -1), pad=0), attention["width"],
            layers=layers, half=half, **attention,
        ),
        subject(
            Transformer, photograph, 1e-4, f"ViT-B/16's shape, {kind}" if half else "a small ViT, float32",
            image, 1000, layers=layers, pixels=pixels, half=half, **attention,
        ),
    ]  # fmt: skip
    return {one.name: one for one in found}


def sentence_length(random: np.random.Generator) -> int:
    """Draws the words of a sentence: lognormal like the lengths of real texts, with a median of 32."""
    return max(SHORTEST, min(LONGEST, round(random.lognormal(math.log(32.0), 0.7))))


def _convolution(inner: int, outer: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inner, outer, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight)  # keeps activations from vanishing over fifty untrained layers
    return [convolution, nn.BatchNorm2d(outer)]
