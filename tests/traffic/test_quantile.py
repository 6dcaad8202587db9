"""Tests the limits of a p95 from counts by bucket."""

import random
from collections import Counter

from serving.core.octaves import bucket_of
from serving.traffic.quantile import above, p95, p95_limits


def drawn(count: int, seed: int) -> Counter[int]:
    chance = random.Random(seed)
    return Counter(bucket_of(20e6 * chance.lognormvariate(0, 0.3)) for _ in range(count))


TRUE = bucket_of(20e6 * 2.718281828 ** (1.6448536 * 0.3))


def test_few_times_say_nothing() -> None:
    assert p95_limits({}, 0.01) == (None, None)
    assert p95_limits({100: 2}, 0.001) == (None, None)
    assert p95({}) is None


def test_equal_times_have_their_own_bucket_as_p95() -> None:
    assert p95_limits({100: 300}, 0.01) == (99, 100)
    assert (p95({100: 300}), above({100: 300}, 99), above({100: 300}, 100)) == (100, 300, 0)


def test_the_limits_close_in_on_the_true_p95() -> None:
    widths = []
    for count in (200, 2000, 20_000):
        low, high = p95_limits(drawn(count, 1), 0.01)
        assert low is not None
        assert high is not None
        assert low < TRUE <= high
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)


def test_the_true_p95_is_seldom_outside_at_any_time() -> None:
    wrong = 0
    for seed in range(150):
        times = Counter[int]()
        for look in range(12):
            times += drawn(50, 1000 * seed + look)
            low, high = p95_limits(times, 0.05)
            if (low is not None and low >= TRUE) or (high is not None and high < TRUE):
                wrong += 1
                break
    assert wrong <= 15  # 5 % for each side, 10 % of 150
