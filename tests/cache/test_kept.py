"""Tests the answers in memory: what is found, when they expire, and which are dropped for want of memory."""

import random

import numpy as np

from serving.cache.kept import LARGEST_PART, Answer, Kept, Key, owned

FAR_MS = 10**15


def answer(size: int = 10, expires_ms: int = FAR_MS) -> Answer:
    return Answer({}, size, expires_ms)


def key(name: str, tenant: str = "acme") -> Key:
    return tenant, name.encode()


def test_an_answer_is_found_until_it_expires() -> None:
    kept = Kept(1000)
    kept.put(key("a"), answer(expires_ms=5))
    assert kept.get(key("a"), 4) is not None
    assert kept.get(key("a"), 5) is None
    assert kept.bytes == 0


def test_the_least_recently_used_answer_makes_room() -> None:
    kept = Kept(100)
    for name in "abcdefghij":
        kept.put(key(name), answer())
    kept.get(key("a"), 0)
    kept.put(key("k"), answer())
    assert kept.get(key("b"), 0) is None
    assert kept.get(key("a"), 0) is not None


def test_an_answer_that_would_fill_much_of_the_memory_is_not_kept() -> None:
    kept = Kept(100)
    kept.put(key("small"), answer(100 // LARGEST_PART))
    kept.put(key("large"), answer(100 // LARGEST_PART + 1))
    assert (len(kept), kept.get(key("large"), 0)) == (1, None)


def test_without_memory_nothing_is_kept() -> None:
    kept = Kept(0)
    kept.put(key("a"), owned({"y": np.zeros(0)}, FAR_MS))
    assert len(kept) == 0


def test_tenants_are_cleared_one_by_one() -> None:
    kept = Kept(1000)
    for tenant in ("acme", "blue"):
        kept.put(key("a", tenant), answer())
    assert kept.clear("acme") == 1
    assert kept.get(key("a", "acme"), 0) is None
    assert kept.get(key("a", "blue"), 0) is not None
    assert kept.clear() == 1


def test_the_memory_is_never_exceeded_and_counted_exactly() -> None:
    chance = random.Random(4)
    kept, held = Kept(300), dict[Key, Answer]()
    for now_ms in range(2000):
        name = key(str(chance.randrange(30)), chance.choice("ab"))
        if chance.random() < 0.6:
            held[name] = answer(chance.randrange(1, 37), now_ms + chance.randrange(1, 50))
            kept.put(name, held[name])
        else:
            found = kept.get(name, now_ms)
            assert found is None or (found is held[name] and found.expires_ms > now_ms)
        assert kept.bytes <= 300
        assert kept.bytes == sum(one.size for one in kept._answers.values())


def test_an_answer_is_a_copy_that_nobody_can_change() -> None:
    batch = np.arange(6, dtype=np.float32).reshape(3, 2)
    words = np.array([b"one", "zwei", bytearray(b"three")], object)
    kept = owned({"y": batch[1:2], "t": words}, FAR_MS)
    batch[:] = 0
    assert kept.outputs["y"].tolist() == [[2, 3]]
    assert kept.outputs["y"].base is None
    assert kept.outputs["t"].tolist() == [b"one", b"zwei", b"three"]
    assert not any(array.flags.writeable for array in kept.outputs.values())


def test_an_answer_counts_with_the_memory_it_takes() -> None:
    small = owned({"y": np.zeros(10, np.float32)}, FAR_MS).size
    assert owned({"y": np.zeros(1010, np.float32)}, FAR_MS).size == small + 4000
    texts = np.array([b"x" * 100] * 10, object)
    assert owned({"t": texts}, FAR_MS).size > 10 * (100 + 33)
