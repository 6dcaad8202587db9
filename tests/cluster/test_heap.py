"""Tests when a process returns free memory to the operating system."""

import asyncio

from serving.cluster.replica.heap import EVERY_NS, MOST, Heap, Keeping, malloc_trim

MIB = 1 << 20
LOOK_NS = 2_000_000_000


def test_a_process_that_has_grown_returns_memory_when_it_is_idle() -> None:
    keeping = Keeping(400 * MIB)
    assert not keeping.is_due(410 * MIB, 0, LOOK_NS)  # it has hardly grown
    assert not keeping.is_due(900 * MIB, LOOK_NS, LOOK_NS)  # it computes
    assert keeping.is_due(900 * MIB, LOOK_NS // 50, LOOK_NS)
    keeping.given_back(700 * MIB)  # all in use: trimming again would free nothing
    assert not keeping.is_due(730 * MIB, 0, LOOK_NS)
    assert keeping.is_due(800 * MIB, 0, LOOK_NS)


def test_memory_held_from_the_start_is_not_trimmed() -> None:
    keeping = Keeping(400 * MIB)
    assert keeping.is_due(500 * MIB, 0, LOOK_NS)
    keeping.given_back(350 * MIB)
    assert not keeping.is_due(400 * MIB, 0, LOOK_NS)
    assert keeping.is_due(500 * MIB, 0, LOOK_NS)


def test_a_process_that_needs_its_memory_again_and_again_is_trimmed_rarely() -> None:
    keeping, times = Keeping(400 * MIB), 0
    looks = 4 * EVERY_NS // LOOK_NS
    for _ in range(looks):
        if keeping.is_due(900 * MIB, 0, LOOK_NS):
            times += 1
            keeping.given_back(400 * MIB)
    assert MOST + 3 <= times <= MOST + 4


def test_the_heap_is_trimmed_once_when_it_is_due() -> None:
    resident, trimmed = [400 * MIB], []

    def trim(pad: int) -> None:
        trimmed.append(pad)
        resident[0] = 420 * MIB

    watched = Heap(trim, resident_bytes=lambda: resident[0], used_ns=lambda: 0)
    for held, times in ((400, 0), (900, 1), (420, 1), (430, 1), (900, 2)):
        resident[0] = held * MIB
        asyncio.run(watched.look())
        assert len(trimmed) == times
    assert trimmed == [0, 0]


def test_without_malloc_trim_nothing_is_done() -> None:
    resident = [400 * MIB]
    watched = Heap(None, resident_bytes=lambda: resident[0], used_ns=lambda: 0)
    resident[0] = 900 * MIB
    asyncio.run(watched.look())


def test_glibcs_malloc_takes_the_call() -> None:
    trim = malloc_trim()
    assert trim is None or trim(0) in (0, 1)
