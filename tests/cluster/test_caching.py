"""Tests how a cache is cleared in all replicas of all versions of a model."""

import asyncio
from typing import Any

import pytest

from serving.api.faults import CallFailed
from serving.cluster.front.collector import Replies
from serving.cluster.replica.caching import ReplicaCache
from serving.cluster.replica.counting import QuotaRecorder
from serving.core.outcome import Cancelled
from serving.protocol.errors import BadMessage
from serving.store.base import StoreUnavailable
from serving.telemetry.cache import CacheRecorder


class Recorded:
    """The replicas and the shared store, which write down what they are asked. silent: replicas that do not answer."""

    def __init__(self, *, silent: int = 0, removed: int | Exception = 5) -> None:
        self.asked: list[str] = []
        self._silent = silent
        self._removed = removed

    async def ask(self, method: str, *arguments: Any, of: list[str]) -> dict[str, Replies]:
        self.asked.append(f"{method} {arguments} of {' '.join(of)}")
        return {"net": Replies([2, 3], self._silent), "net@2": Replies()}

    async def clear(self, model: str, tenant: str | None) -> int:
        self.asked.append(f"store {model} {tenant}")
        if isinstance(self._removed, Exception):
            raise self._removed
        return self._removed


RUNNING = ["front", "net", "network", "net@2", "other@2"]


def cleared(house: Recorded, changes: dict[str, object], *, shares: bool = True) -> dict[str, int]:
    cache: Any = ReplicaCache(None, house if shares else None, None, house, "net", lambda: RUNNING)  # type: ignore[arg-type]
    return asyncio.run(cache.clear(changes))  # type: ignore[no-any-return]


def test_replicas_are_cleared_before_and_after_the_store() -> None:
    house = Recorded()
    assert cleared(house, {"tenant": "acme"}) == {"in_memory": 10, "shared": 5}
    asked = "clear_cache ('acme',) of net net@2"
    assert house.asked == [asked, "store net acme", asked]


def test_without_a_store_replicas_are_cleared_once() -> None:
    house = Recorded()
    assert cleared(house, {}, shares=False) == {"in_memory": 5, "shared": 0}
    assert house.asked == ["clear_cache (None,) of net net@2"]


def test_a_silent_replica_or_store_is_reported() -> None:
    with pytest.raises(CallFailed) as failed:
        cleared(Recorded(silent=1), {})
    assert (failed.value.fault.status, failed.value.fault.text) == (503, "1 replicas did not answer, 2 did")
    with pytest.raises(CallFailed) as failed:
        cleared(Recorded(removed=StoreUnavailable("slow", "no answer within 60000 ms")), {})
    assert "answers may be left there: no answer within" in failed.value.fault.text


@pytest.mark.parametrize("changes", [{"tenant": 3}, {"tenants": "acme"}])
def test_a_wrong_field_is_named(changes: dict[str, object]) -> None:
    with pytest.raises(BadMessage) as mistake:
        cleared(Recorded(), changes)
    assert mistake.value.path == next(iter(changes))


class Places:
    """A quota that writes down whose places are given back."""

    def __init__(self) -> None:
        self.given_back: list[str] = []

    def take(self, tenant: str) -> None:
        raise NotImplementedError

    def give_back(self, tenant: str) -> None:
        self.given_back.append(tenant)


def test_requests_that_never_reach_the_engine_give_their_places_in_the_quota_back() -> None:
    places = Places()
    recorder = CacheRecorder(QuotaRecorder((), places), lambda: 0)
    recorder.answered("acme", "memory", 1)
    recorder.missed()
    recorder.ended("blue", Cancelled())
    assert places.given_back == ["acme", "blue"]
