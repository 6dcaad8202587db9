"""Checks that batching and graphs do not change answers. Differences are relative to the spread of the answers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from benchmarks.gpu.load import Payloads
from serving.core.outcome import Completed, Outcome
from serving.runtime.engine import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """Differences as shares of the spread of the answers (2-norms).

    batched: batched against unbatched, both through the engine. served: unbatched through the engine against the plain
    module. rounding: the plain module against itself in float32. shuffled: against the answers to other requests, which
    must be large for the other numbers to be meaningful.
    """

    batched: float
    served: float
    rounding: float
    shuffled: float

    def __str__(self) -> str:
        return (
            f"batching changes them by {self.batched:.1e}, the engine by {self.served:.1e}, its own rounding by "
            f"{self.rounding:.1e}; answers to other requests differ by {self.shuffled:.1f}"
        )

    def holds(self, tolerance: float) -> bool:
        """Returns whether batching changes answers by at most the tolerance, or twice the model's own rounding."""
        allowed = max(tolerance, 2 * self.rounding)
        return self.batched <= allowed and self.served <= allowed and self.shuffled > 3 * allowed


async def differences(
    engine: Engine, module: nn.Module, exact: nn.Module, device: torch.device, payloads: Payloads
) -> Differences:
    """Measures the differences. exact: the module with the same weights in float32."""
    alone = np.concatenate([_value(await engine.submit(payload, rows=1)) for payload in payloads])
    tickets = [engine.submit(payload, rows=1) for payload in payloads]
    together = np.concatenate([_value(await ticket) for ticket in tickets])
    with torch.inference_mode():
        plain, true = (
            np.concatenate([_plain(one, device, payload) for payload in payloads]) for one in (module, exact)
        )
    spread = float(np.linalg.norm(plain - plain.mean(0)))
    return Differences(
        batched=float(np.linalg.norm(together - alone)) / spread,
        served=float(np.linalg.norm(alone - plain)) / spread,
        rounding=float(np.linalg.norm(plain - true)) / spread,
        shuffled=float(np.linalg.norm(np.roll(plain, 1, axis=0) - plain)) / spread,
    )


def _value(outcome: Outcome) -> np.ndarray:
    if not isinstance(outcome, Completed):
        raise RuntimeError(f"not answered: {outcome}")
    (array,) = outcome.value.values()  # type: ignore[attr-defined]
    return np.array(array, np.float64)


def _plain(module: nn.Module, device: torch.device, payload: dict[str, np.ndarray]) -> np.ndarray:
    (array,) = payload.values()
    result: np.ndarray = module(torch.from_numpy(array.copy()).to(device)).double().cpu().numpy()
    return result


def inputs_of(payloads: Sequence[dict[str, np.ndarray]], rows: int, length: int) -> torch.Tensor:
    """Returns a full batch on the host of these requests, cut or repeated to one length."""
    arrays = [next(iter(payloads[index % len(payloads)].values())) for index in range(rows)]
    if arrays[0].ndim == 2 and arrays[0].dtype == np.int64:
        arrays = [array[:, np.arange(length) % array.shape[1]] for array in arrays]
    return torch.from_numpy(np.concatenate(arrays))
