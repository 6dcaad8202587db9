"""Benchmarks, which take too long for a test; the docstring of each subfolder describes how to run it."""
