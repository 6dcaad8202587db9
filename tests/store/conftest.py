"""A real Valkey for all tests of this folder, and the stores that keep the contract."""

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serving.store.base import QuotaStore
from serving.store.connecting import Address, Client, connect
from serving.store.embedded import embedded
from serving.store.keys import Keys
from serving.store.memory import MemoryQuotaStore
from serving.store.redis import RedisQuotaStore
from serving.testing.clock import ManualClock
from serving.traffic.quota import DAY_NS

NOON_NS = 20_000 * DAY_NS + DAY_NS // 2
PATIENT_S = 5.0
_numbers = itertools.count()


def fresh_keys() -> Keys:
    """Returns keys that no other test uses."""
    return Keys(f"test-{next(_numbers)}")


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that runs as long as the tests."""
    with embedded(tmp_path_factory.mktemp("valkey")) as url:
        yield url


@contextmanager
def redis_store(client: Client) -> Iterator[tuple[asyncio.Runner, RedisQuotaStore]]:
    """Yields a store with a loop of its own, and closes both."""
    with asyncio.Runner() as runner:
        store = RedisQuotaStore(client, fresh_keys())
        yield runner, store
        runner.run(store.close())


@pytest.fixture(params=["memory", "redis"])
def kept(request: pytest.FixtureRequest) -> Iterator[tuple[asyncio.Runner, QuotaStore]]:
    """A loop, and an empty store of each kind."""
    if request.param == "memory":
        with asyncio.Runner() as runner:
            yield runner, MemoryQuotaStore(ManualClock(NOON_NS))
    else:
        with redis_store(connect(Address(url=request.getfixturevalue("valkey")), PATIENT_S)) as kept:
            yield kept


def socket_of(url: str) -> Path:
    return Path(url.removeprefix("unix://"))
