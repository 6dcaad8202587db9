"""An MLP that gains from batching: its weights are read from memory once per batch, for any number of rows.

Every server in the comparison builds it with this code, with one torch thread and the same seed."""

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
    """Computes a batch of requests of raw bytes, one row each."""
    # A bytearray, because torch warns about read-only memory.
    rows = torch.from_numpy(np.frombuffer(bytearray().join(bodies), dtype=np.float32).reshape(-1, WIDTH))
    with torch.inference_mode():
        return [row.tobytes() for row in model(rows).numpy()]
