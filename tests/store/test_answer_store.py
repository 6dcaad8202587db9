"""Tests the contract of stores of answers, with the one in Valkey and its twin in memory."""

import asyncio
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from serving.core.clock import SystemClock
from serving.store.answers import AnswerStore, RedisAnswerStore
from serving.store.connecting import Address, connect
from serving.store.keys import Keys
from serving.store.memory import MemoryAnswerStore
from tests.store.conftest import PATIENT_S, fresh_keys

HOUR_MS = 3_600_000


class Shelf(NamedTuple):
    """A store of either kind, with the loop and the keys to use it with."""

    runner: asyncio.Runner
    store: AnswerStore
    keys: Keys

    def key(self, digest: str = "00", tenant: str = "acme", model: str = "net") -> str:
        return self.keys.answers(tenant, model) + digest

    def write(self, *values: tuple[str, bytes, int]) -> None:
        self.runner.run(self.store.write(values))

    def read(self, *keys: str) -> list[bytes | None]:
        return list(self.runner.run(self.store.read(keys)))

    def clear(self, model: str = "net", tenant: str | None = None) -> int:
        return self.runner.run(self.store.clear(model, tenant))


@pytest.fixture(params=["memory", "redis"])
def shelf(request: pytest.FixtureRequest) -> Iterator[Shelf]:
    keys = fresh_keys()
    with asyncio.Runner() as runner:
        store: AnswerStore = MemoryAnswerStore(SystemClock(), keys)
        if request.param == "redis":
            store = RedisAnswerStore(connect(Address(url=request.getfixturevalue("valkey")), PATIENT_S), keys)
        yield Shelf(runner, store, keys)
        runner.run(store.close())


def test_values_come_back_in_the_order_of_their_keys(shelf: Shelf) -> None:
    one, two, three = (shelf.key(digest) for digest in ("01", "02", "03"))
    shelf.write((one, b"first", HOUR_MS), (two, b"\x00\xff\r\n", HOUR_MS))
    assert shelf.read(two, three, one, two) == [b"\x00\xff\r\n", None, b"first", b"\x00\xff\r\n"]


def test_a_later_value_replaces_an_earlier_one(shelf: Shelf) -> None:
    shelf.write((shelf.key(), b"old", HOUR_MS))
    shelf.write((shelf.key(), b"new", HOUR_MS))
    assert shelf.read(shelf.key()) == [b"new"]


def test_a_value_is_gone_after_its_time_to_live(shelf: Shelf) -> None:
    shelf.write((shelf.key("short"), b"x", 1), (shelf.key("long"), b"y", HOUR_MS))
    for _ in range(10_000):
        if shelf.read(shelf.key("short")) == [None]:
            break
    assert shelf.read(shelf.key("short"), shelf.key("long")) == [None, b"y"]


def test_a_model_is_cleared_for_one_tenant_or_all_and_no_other_model_is_touched(shelf: Shelf) -> None:
    owned = [shelf.key(str(number)) for number in range(5)]
    others = shelf.key(tenant="blue")
    elsewhere = [shelf.key(model="nets"), shelf.key(model="ne"), shelf.key(tenant="net", model="other")]
    shelf.write(*((key, b"x", HOUR_MS) for key in (*owned, others, *elsewhere)))
    assert shelf.clear(tenant="acme") == 5
    assert shelf.read(*owned, others) == [None] * 5 + [b"x"]
    assert shelf.clear() == 1
    assert shelf.read(others, *elsewhere) == [None, b"x", b"x", b"x"]
    assert shelf.clear() == 0


@pytest.mark.parametrize("tenant", ["*", "a:net", "?", "[a]", "", "a*:"])
def test_a_name_is_no_pattern(shelf: Shelf, tenant: str) -> None:
    shelf.write((shelf.key(), b"x", HOUR_MS), (shelf.key(tenant=tenant), b"y", HOUR_MS))
    assert shelf.clear(tenant=tenant) == 1
    assert shelf.read(shelf.key()) == [b"x"]


def test_many_answers_are_cleared(shelf: Shelf) -> None:
    shelf.write(*((shelf.key(str(number)), b"x", HOUR_MS) for number in range(2500)))
    assert shelf.clear() == 2500
