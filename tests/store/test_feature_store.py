"""Tests the contract of feature stores, with the one in memory and with a real Valkey; and the format in Redis."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.features.reading import Reason, Stored
from serving.features.views import Scalar
from serving.store.connecting import Address, Client, connect
from serving.store.features import (
    FeatureStore,
    NoFeatureStore,
    RedisFeatureStore,
    StoreUnavailable,
    Wanted,
    Write,
    pack,
    unpacked,
)
from serving.store.keys import Keys
from serving.testing.clock import ManualClock
from serving.testing.features import MemoryFeatureStore
from tests.store.conftest import PATIENT_S, fresh_keys

Kept = tuple[asyncio.Runner, FeatureStore]
HOUR_MS = 3_600_000
VALUES: tuple[Scalar | None, ...] = (True, 0, -(2**63), 2**63 - 1, 0.1, -0.0, float("inf"), "Zürich", "", None)


@pytest.fixture(params=["memory", "redis"])
def kept(request: pytest.FixtureRequest) -> Iterator[Kept]:
    """A loop, and an empty store of each kind."""
    with asyncio.Runner() as runner:
        if request.param == "memory":
            store: FeatureStore = MemoryFeatureStore(ManualClock())
        else:
            store = RedisFeatureStore(connect(Address(url=request.getfixturevalue("valkey")), PATIENT_S), fresh_keys())
        yield runner, store
        runner.run(store.close())


def write(value: Scalar | None = 1, event_ms: int = 1000, **changes: Any) -> Write:
    place = {"tenant": "acme", "entity": "user", "id": "u7", "feature": "age"}
    return Write(**place | changes, value=Stored(event_ms, "1", value), keep_ms=HOUR_MS)


def wanted(write: Write, *features: str) -> Wanted:
    return Wanted(write.tenant, write.entity, write.id, features or (write.feature,))


def written(kept: Kept, *writes: Write) -> list[bool]:
    runner, store = kept
    return runner.run(store.write(writes))


def value_of(kept: Kept, write: Write) -> object:
    runner, store = kept
    ((found,),) = runner.run(store.read([wanted(write)]))
    return found.value if isinstance(found, Stored) else found


@pytest.mark.parametrize("value", VALUES)
def test_a_value_is_read_as_it_was_written(kept: Kept, value: Scalar | None) -> None:
    runner, store = kept
    assert written(kept, write(value)) == [True]
    ((found,),) = runner.run(store.read([wanted(write())]))
    assert found == Stored(1000, "1", value)
    assert type(found.value) is type(value)


def test_features_of_several_entities_are_read_in_one_call_in_their_order(kept: Kept) -> None:
    runner, store = kept
    written(kept, write(1), write(2, feature="size"), write(3, id="u8"))
    asked = [wanted(write(), "size", "none", "age"), wanted(write(id="u8"), "age", "size"), wanted(write(id="u9"))]
    found = runner.run(store.read(asked))
    values = [[one.value if isinstance(one, Stored) else one for one in of_entity] for of_entity in found]
    assert values == [[2, Reason.MISSING, 1], [3, Reason.MISSING], [Reason.MISSING]]
    assert runner.run(store.read([])) == []


def test_a_late_value_never_replaces_a_newer_one(kept: Kept) -> None:
    assert written(kept, write("new", 2000), write("late", 1999)) == [True, False]
    assert value_of(kept, write()) == "new"
    assert written(kept, write(None, 2001), write("late", 2000)) == [True, False]
    assert value_of(kept, write()) is None


def test_of_values_of_the_same_time_the_later_write_counts(kept: Kept) -> None:
    assert written(kept, write("one"), write("two")) == [True, True]
    assert written(kept, write("three")) == [True]
    assert value_of(kept, write()) == "three"


@pytest.mark.parametrize(
    "other",
    [
        {"tenant": "globex"},
        {"tenant": ""},
        {"entity": "shop"},
        {"id": "u8"},
        {"feature": "size"},
        {"tenant": "acme:user", "entity": "u7", "id": "age"},
        {"id": "u7:age", "feature": ""},
        {"tenant": "{acme}"},
        {"id": "ü*\n"},
    ],
)
def test_no_value_is_found_under_other_names(kept: Kept, other: dict[str, str]) -> None:
    written(kept, write("ours"))
    assert value_of(kept, write(**other)) is Reason.MISSING
    written(kept, write("theirs", **other))
    assert (value_of(kept, write()), value_of(kept, write(**other))) == ("ours", "theirs")


WRITES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9), st.sampled_from(["age", "size"])), max_size=12)


@given(WRITES)
@settings(max_examples=60)
def test_redis_keeps_what_memory_keeps(valkey: str, writes: list[tuple[int, int, str]]) -> None:
    made = [write(value, event_ms, feature=feature) for event_ms, value, feature in writes]
    with asyncio.Runner() as runner:
        theirs = RedisFeatureStore(connect(Address(url=valkey), PATIENT_S), fresh_keys())
        ours = MemoryFeatureStore(ManualClock())
        half = len(made) // 2
        for part in (made[:half], made[half:]):
            assert runner.run(theirs.write(part)) == runner.run(ours.write(part))
        asked = [wanted(write(), "age", "size")]
        assert runner.run(theirs.read(asked)) == runner.run(ours.read(asked))
        runner.run(theirs.close())


def test_a_value_is_kept_for_its_time_from_the_last_write() -> None:
    clock = ManualClock()
    with asyncio.Runner() as runner:
        kept = runner, MemoryFeatureStore(clock)
        written(kept, write("old", 5000))
        clock.advance(HOUR_MS * 1_000_000 - 1)
        assert value_of(kept, write()) == "old"
        clock.advance(1)
        assert value_of(kept, write()) is Reason.MISSING
        assert written(kept, write("older", 4000)) == [True]


class InRedis:
    """A store in Redis, with a way to what is in there."""

    def __init__(self, runner: asyncio.Runner, client: Client, keys: Keys) -> None:
        self.runner = runner
        self.client: Any = client
        self.store = RedisFeatureStore(client, keys)
        (self.key,) = keys.features("acme", "user", "u7", ["age"])
        self.kept: Kept = runner, self.store


@pytest.fixture
def in_redis(valkey: str) -> Iterator[InRedis]:
    with asyncio.Runner() as runner:
        made = InRedis(runner, connect(Address(url=valkey), PATIENT_S), fresh_keys())
        yield made
        runner.run(made.store.close())


# Values of layout 1 as they have been written. They stay readable as long as keys have this number.
LAYOUT_1 = {
    "93cf000001a2272d2600a1312a": Stored(1_795_953_600_000, "1", 42),
    "93cf000001a2272d2600a132c3": Stored(1_795_953_600_000, "2", True),
    "93cf000001a2272d2600a131cb3fe0000000000000": Stored(1_795_953_600_000, "1", 0.5),
    "93cf000001a2272d2600a5612e622d31a75ac3bc72696368": Stored(1_795_953_600_000, "a.b-1", "Zürich"),
    "93cf000001a2272d2600a131d38000000000000000": Stored(1_795_953_600_000, "1", -(2**63)),
    "9300a131c0": Stored(0, "1", None),
}


def test_a_value_of_an_earlier_release_is_read(in_redis: InRedis) -> None:
    assert in_redis.key.endswith(":1:feature:acme:user:u7:age")
    for kept, stored in LAYOUT_1.items():
        in_redis.runner.run(in_redis.client.set(in_redis.key, bytes.fromhex(kept)))
        ((found,),) = in_redis.runner.run(in_redis.store.read([wanted(write())]))
        assert found == stored
        assert pack(stored).hex() == kept, "the layout has changed: give it a new number in keys.VERSION"


def test_redis_forgets_a_value_by_itself(in_redis: InRedis) -> None:
    written(in_redis.kept, write())
    assert HOUR_MS - 60_000 < in_redis.runner.run(in_redis.client.pttl(in_redis.key)) <= HOUR_MS
    written(in_redis.kept, replace(write(), keep_ms=60_000))
    assert in_redis.runner.run(in_redis.client.pttl(in_redis.key)) <= 60_000


GARBAGE = [b"", b"x", b"\xc1", b"\x93", b"\x93\x01\x02\x03", b"\x92\x01\xa1a", b"\x94\x01\xa11\x01\x01", b"null",
           b"\x93\xcb\x7f\xf8\0\0\0\0\0\0\xa11\x01", b"\x93\x01\xa1\xff\x01", b"\xff" * 1000, b"\x93\x01\xa11\x91\x01",
           b"\x93\xd3\xff", b"\x81\x01\x02"]  # fmt: skip


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_is_no_value_and_is_replaced(in_redis: InRedis, garbage: bytes) -> None:
    in_redis.runner.run(in_redis.client.set(in_redis.key, garbage))
    assert value_of(in_redis.kept, write()) is Reason.UNREADABLE
    assert written(in_redis.kept, write("good", 10**13)) == [True]
    assert value_of(in_redis.kept, write()) == "good"


def test_a_key_of_another_kind_is_no_value_and_is_replaced(in_redis: InRedis) -> None:
    in_redis.runner.run(in_redis.client.hset(in_redis.key, "a", "b"))
    assert value_of(in_redis.kept, write()) is Reason.MISSING
    assert written(in_redis.kept, write("good")) == [True]
    assert value_of(in_redis.kept, write()) == "good"


@given(st.binary(max_size=30) | st.none())
def test_whatever_is_in_redis_is_a_value_or_a_reason(kept: bytes | None) -> None:
    found = unpacked(kept)
    assert found is (Reason.MISSING if kept is None else Reason.UNREADABLE) or isinstance(found, Stored)


def test_a_server_without_a_redis_says_so() -> None:
    for call in (NoFeatureStore().read([wanted(write())]), NoFeatureStore().write([write()])):
        with pytest.raises(StoreUnavailable, match=r"no Redis; the setting server\.redis names one"):
            asyncio.run(call)
