"""Benchmarks of the load generator's accuracy and of its highest rate."""
