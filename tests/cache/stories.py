"""A cache in front of a backend that a test settles by hand, for stories about both."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serving.cache.backend import CachedBackend
from serving.cache.shared import SharedAnswers
from serving.core.outcome import Cancelled, Completed, Outcome, Timings
from serving.core.statistics import ModelStatistics
from serving.runtime.settling import Settling
from serving.store.keys import Keys
from serving.testing.clock import ManualClock

TTL_S = 100
NS = 1_000_000_000
TIMINGS = Timings(1, 2, 3, 1)


class Asked(Settling):
    """A request that reached the backend."""

    __slots__ = ("_then", "_waiter", "more", "outcome", "owner", "payload")

    def __init__(self, owner: "ByHand", payload: Mapping[str, np.ndarray], more: dict[str, Any]) -> None:
        self.owner, self.payload, self.more = owner, payload, more
        self.outcome: Outcome | None = None
        self._then: Callable[[Outcome], None] | None = None
        self._waiter: asyncio.Future[None] | None = None

    def cancel(self) -> None:
        if self.outcome is None:
            self.end(Cancelled())

    def end(self, outcome: Outcome) -> None:
        self.owner.ended[self.more["tenant"]] += 1
        self.settle(outcome)

    def complete(self, **outputs: np.ndarray) -> None:
        """Completes the request, by default with twice its input."""
        self.end(Completed(outputs or {"y": 2 * self.payload["x"]}, 5, TIMINGS))


class ByHand:
    """A backend whose requests the test ends. ended: their number, by tenant. refusal: ends requests at once."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.ended: Counter[str] = Counter()
        self.refusal: Outcome | None = None

    def submit(self, payload: Any, **more: Any) -> Asked:
        asked = Asked(self, payload, more)
        self.asked.append(asked)
        if self.refusal is not None:
            asked.end(self.refusal)
        return asked

    def statistics(self) -> ModelStatistics:
        return ModelStatistics()

    def is_ready(self) -> bool:
        return True

    def open(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.outcome is None]


@dataclass
class Told:
    """An observer of cache and look-ups that remembers."""

    answers: list[tuple[str, str, int]] = field(default_factory=list)
    misses: int = 0
    ended_here: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    looked: int = 0

    def answered(self, tenant: str, source: str, rows: int) -> None:
        self.answers.append((tenant, source, rows))
        self.ended_here[tenant] += 1

    def missed(self) -> None:
        self.misses += 1

    def ended(self, tenant: str, outcome: Outcome) -> None:
        self.ended_here[tenant] += 1

    def looked_up(self, took_ns: int) -> None:
        self.looked += 1

    def unavailable(self, kind: str, count: int) -> None:
        self.failures[kind] += count

    def sources(self) -> list[str]:
        return [source for _, source, _ in self.answers]


class House:
    """A cache, its backend, and what it has told. shared: what it shares with others."""

    def __init__(
        self,
        shared: Callable[[Told], SharedAnswers] | None = None,
        *,
        fingerprint: bytes = b"v1",
        keys: Keys | None = None,
        most_bytes: int = 1 << 20,
    ) -> None:
        self.clock, self.calendar = ManualClock(10**12), ManualClock(1_700_000_000 * NS)
        self.told = Told()
        self.engine = ByHand()
        self.shared = shared(self.told) if shared else None
        self.cache = CachedBackend(
            self.engine,
            model="net",
            outputs=["y"],
            fingerprint=fingerprint,
            ttl_s=TTL_S,
            most_bytes=most_bytes,
            observer=self.told,
            random=lambda: 0.5,
            shared=self.shared,
            keys=keys,
            clock=self.clock,
            calendar=self.calendar,
        )

    def ask(self, value: float = 1.0, tenant: str = "acme", **more: Any) -> Any:
        payload = {"x": np.full((1, 2), value, np.float32)}
        return self.cache.submit(payload, rows=1, tenant=tenant, **more)


def story(tell: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(tell(), 60))


async def turns(count: int = 5) -> None:
    """Lets the loop take some turns."""
    for _ in range(count):
        await asyncio.sleep(0)


def value(request: Any) -> float:
    """Returns the answer of a request that has completed, the first of its outputs' equal numbers."""
    assert isinstance(request.outcome, Completed), request.outcome
    outputs: Any = request.outcome.value
    return float(outputs["y"][0, 0])
