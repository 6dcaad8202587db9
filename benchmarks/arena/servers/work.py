"""The works that every peer computes, from a batch of request bodies to a batch of answers, with the same code and
weights.

Each server calls one of these with its own batching. Bodies are bare bytes: 4 KB of FP32, a sentence, or a JPEG."""

from collections.abc import Callable

import numpy as np

MAX_BATCH = 64
MAX_WAIT_MS = 2
WORKS = ("noop", "mlp", "sentences", "photographs")
# The latency objective of each work. It is configured in the servers that have such a setting.
OBJECTIVE_MS = {"noop": 20, "mlp": 50, "sentences": 250, "photographs": 500}

Answer = Callable[[list[bytes]], list[bytes]]


def load(work: str) -> Answer:
    """Loads the model of that work, with one torch thread."""
    return {"noop": _noop, "mlp": _mlp, "sentences": _sentences, "photographs": _photographs}[work]()


def _noop() -> Answer:
    return lambda bodies: [b"\0\0\0\0"] * len(bodies)


def _mlp() -> Answer:
    import mlp  # type: ignore[import-not-found]  # benchmarks/peers/servers/mlp.py, on the path of these servers

    model = mlp.build()
    return lambda bodies: mlp.answer(model, bodies)


def _sentences() -> Answer:
    from models.text_embedder import TextEmbedder

    return _torch(TextEmbedder(), "text", "")


def _photographs() -> Answer:
    from models.image_classifier import ImageClassifier

    return _torch(ImageClassifier(), "image", "probabilities")


def _torch(model, name: str, output: str) -> Answer:  # type: ignore[no-untyped-def]
    import torch

    torch.set_num_threads(1)
    model.eval()

    def answer(bodies: list[bytes]) -> list[bytes]:
        contents = np.empty((len(bodies), 1), dtype=object)
        contents[:, 0] = bodies
        prepared = {key: torch.from_numpy(value) for key, value in model.prepare({name: contents}).items()}
        with torch.inference_mode():
            outputs = model(**prepared)
        rows = (outputs[output] if output else outputs).numpy()
        return [row.tobytes() for row in rows]

    return answer
