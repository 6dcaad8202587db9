"""Models with the kinds of answers that the page must show: a label with its score, a text, a vector, a table."""

import numpy as np

from models.reference import NumpyModel
from models.spec import ModelSpec, TensorSpec

LABELS = ("cat", "dog: small", "fish")


def classifier(spec: ModelSpec) -> NumpyModel:
    """Classifies a file by its length."""

    def compute(images: np.ndarray) -> tuple[np.ndarray, ...]:
        best = np.array([len(image) % len(LABELS) for image in images[:, 0]])
        scores = np.full((len(images), len(LABELS)), 0.1, np.float32)
        scores[np.arange(len(images)), best] = 0.8
        names = np.array([[LABELS[index].encode()] for index in best], dtype=object)
        return names, scores.max(axis=1, keepdims=True), scores

    return NumpyModel(spec, compute)


def embedder(spec: ModelSpec) -> NumpyModel:
    """Embeds a text as its first 64 characters, scaled to numbers around zero."""

    def compute(texts: np.ndarray) -> tuple[np.ndarray, ...]:
        rows = [np.frombuffer(text[:64].ljust(64), np.uint8).astype(np.float32) - 96 for text in texts[:, 0]]
        upper = np.array([[text.decode().upper().encode()] for text in texts[:, 0]], dtype=object)
        return np.stack(rows), upper

    return NumpyModel(spec, compute)


def numbers(spec: ModelSpec) -> NumpyModel:
    """Takes inputs of all datatypes that are not texts, and returns among others a table."""

    def compute(a: np.ndarray, flag: np.ndarray, long: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, ...]:
        table = np.repeat(a[:, None, :], 3, axis=1) * np.arange(1, 4, dtype=np.float32)[None, :, None]
        table[:, 0, 0] = np.nan
        return table, flag, long.sum(axis=1, keepdims=True), half

    return NumpyModel(spec, compute)


def _tensor(name: str, datatype: str, *row: int) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=(-1, *row))


CLASSIFIER = ModelSpec(
    name="classifier",
    factory="tests.api.shown_models:classifier",
    inputs=(_tensor("image", "BYTES", 1),),
    outputs=(_tensor("label", "BYTES", 1), _tensor("score", "FP32", 1), _tensor("probabilities", "FP32", 3)),
    labels={"probabilities": LABELS},
    description="The length of a file to an animal.",
)
EMBEDDER = ModelSpec(
    name="embedder",
    factory="tests.api.shown_models:embedder",
    inputs=(_tensor("text", "BYTES", 1),),
    outputs=(_tensor("embedding", "FP32", 64), _tensor("loud", "BYTES", 1)),
    description="A sentence to 64 numbers.",
    example='{"inputs": [{"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": ["It\'s noon — \\"tea\\"?"]}]}',
)
NUMBERS = ModelSpec(
    name="numbers",
    factory="tests.api.shown_models:numbers",
    inputs=(
        _tensor("a", "FP32", 3),
        _tensor("flag", "BOOL", 1),
        _tensor("class", "INT64", -1),
        _tensor("half", "FP16", 4),
    ),
    outputs=(
        _tensor("table", "FP32", 3, 3),
        _tensor("flag", "BOOL", 1),
        _tensor("sum", "INT64", 1),
        _tensor("half", "FP16", 4),
    ),
)
