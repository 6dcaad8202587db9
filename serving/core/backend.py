"""What a protocol needs of whatever answers requests: the local engine, or a fake of it."""

from collections.abc import Awaitable
from typing import Protocol

from serving.core.outcome import Outcome
from serving.core.statistics import ModelStatistics


class Backend(Protocol):
    def submit(
        self,
        payload: object,
        *,
        rows: int,
        tenant: str = "",
        priority: int = 0,
        timeout_ns: int | None = None,
    ) -> Awaitable[Outcome]:
        """Hands over one request; must be called on the event loop. Never raises for what a client did.

        payload: what the model takes: `dict[str, numpy.ndarray]`, every array `[rows, ...]`.
        rows: the leading dimension, at least 1.
        priority: 0 is the model's default, 1 the most urgent, larger numbers less so (Triton's order).
        timeout_ns: the client's own limit, counted from now; beyond it an answer is worth nothing.
        Cancelling the task that awaits the result withdraws the request.
        """
        ...

    def statistics(self) -> ModelStatistics: ...

    def is_ready(self) -> bool:
        """Can take requests now: warmed up, lanes alive, not draining."""
        ...
