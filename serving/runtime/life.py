"""The life cycle that all engines share: open, accept requests, drain, close."""

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Self

from serving.core.errors import LaneLost
from serving.core.ledger import Ledger
from serving.core.outcome import Failed, Outcome

DRAIN_S = 30.0


class Life(ABC):
    """An engine's life cycle. Use it as `async with`: entering opens, leaving drains and closes."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self._accepting = False
        self._empty = asyncio.Event()

    @abstractmethod
    async def open(self) -> None:
        """Opens the engine; returns when it accepts requests."""

    @abstractmethod
    def close(self) -> None:
        """Ends the threads. Call `drain` first."""

    @abstractmethod
    def _end_open(self, outcome: Outcome) -> int:
        """Ends every request that has not ended yet, with this outcome. Returns their number."""

    async def drain(self, timeout_s: float) -> int:
        """Refuses new requests, waits until all others are answered, and fails those left after `timeout_s`. Returns
        the number of requests that it failed."""
        self._accepting = False
        if not self.ledger.is_empty():
            self._empty.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._empty.wait()
        return self._end_open(Failed(LaneLost("the server shut down before the request was served")))

    def _notice_if_drained(self) -> None:
        """Wakes `drain` if no request is left. Called whenever a request has ended."""
        if not self._accepting and self.ledger.is_empty():
            self._empty.set()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drain(timeout_s=DRAIN_S)
        self.close()
