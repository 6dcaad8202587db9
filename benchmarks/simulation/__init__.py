"""The sections of `python -m benchmarks.simulate`, measured with `serving.testing.simulation` and written as tables."""
