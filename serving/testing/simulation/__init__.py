"""A seeded, event-driven simulation of the batching queue: the real core against baselines, on the same executor.

Time is whole nanoseconds on a simulated clock. `python -m benchmarks.simulate` runs it.
"""
