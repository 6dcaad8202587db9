"""A seeded, event-driven simulation of the batching queue: the real core against baselines, on the same executor.

Time is whole nanoseconds on a clock that the simulation turns. `python -m benchmarks.simulate` runs it.
"""
