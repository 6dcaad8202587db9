"""Measures each work without a server: rows per second on one thread, printed as JSON.

The arena derives its rates from these numbers, which do not depend on any server."""

import json
import random
import sys
import time

import work

from loadtest.samples import photograph, sentence

BATCHES = (1, 8, 32)
BODIES = 64


def bodies(name: str) -> list[bytes]:
    """Returns bodies sorted by length, so that a batch has similar lengths, as in the best batches of a server."""
    generator = random.Random(0)
    if name == "sentences":
        texts = [sentence(max(1, round(generator.lognormvariate(2.5, 0.8))), generator) for _ in range(BODIES)]
        return sorted(texts, key=len)
    if name == "photographs":
        return [photograph(max(1, round(generator.lognormvariate(5.7, 0.3))), generator) for _ in range(BODIES)]
    return [b"\0\0\0\x3f" * 1024 for _ in range(BODIES)]


def rows_per_second(name: str) -> float:
    """Returns the rows per second at the best batch size."""
    answer, rows = work.load(name), bodies(name)
    answer(rows[:1])
    best = 0.0
    for size in BATCHES:
        start = time.perf_counter()
        for first in range(0, BODIES, size):
            answer(rows[first : first + size])
        best = max(best, BODIES / (time.perf_counter() - start))
    return best


if __name__ == "__main__":
    print(json.dumps({name: rows_per_second(name) for name in sys.argv[1:]}))
