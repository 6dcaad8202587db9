"""The model on which batching pays: its weights are streamed from memory once per batch, however many rows it has.

Every server in the comparison builds it from here, with one torch thread and the same seed."""

import numpy as np
import torch

WIDTH = 1024
HIDDEN_LAYERS = 6
OUTPUTS = 10


def build() -> torch.nn.Module:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for _ in range(HIDDEN_LAYERS):
        layers += [torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(WIDTH, OUTPUTS)).eval()


def answer(model: torch.nn.Module, bodies: list[bytes]) -> list[bytes]:
    """One forward over requests that arrived as raw bytes, one row each."""
    # bytearray: torch refuses to promise anything about memory it may not write to.
    rows = torch.from_numpy(np.frombuffer(bytearray().join(bodies), dtype=np.float32).reshape(-1, WIDTH))
    with torch.inference_mode():
        return [row.tobytes() for row in model(rows).numpy()]
