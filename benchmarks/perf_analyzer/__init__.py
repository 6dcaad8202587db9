"""Triton's load generator perf_analyzer against Headway, in all its modes."""
