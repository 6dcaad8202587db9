"""The life of an engine, whatever it computes: it opens, takes requests, drains and closes."""

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Self

from serving.core.errors import LaneLost
from serving.core.ledger import Ledger
from serving.core.outcome import Failed, Outcome

DRAIN_S = 30.0


class Life(ABC):
    """Use it as `async with`: entering opens, leaving drains and closes."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self._accepting = False
        self._empty = asyncio.Event()

    @abstractmethod
    async def open(self) -> None:
        """Returns when requests can be taken."""

    @abstractmethod
    def close(self) -> None:
        """Ends the threads. Call `drain` first."""

    @abstractmethod
    def _end_open(self, outcome: Outcome) -> int:
        """Ends every request that has not ended yet. Returns how many those were."""

    async def drain(self, timeout_s: float) -> int:
        """Refuses newcomers, answers whom it can in time, fails the rest. Returns how many it had to fail."""
        self._accepting = False
        if not self.ledger.is_empty():
            self._empty.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._empty.wait()
        return self._end_open(Failed(LaneLost("the server shut down before the request was served")))

    def _notice_if_drained(self) -> None:
        """Call it when a request has ended."""
        if not self._accepting and self.ledger.is_empty():
            self._empty.set()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drain(timeout_s=DRAIN_S)
        self.close()
