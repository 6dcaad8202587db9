"""Triton's load generator perf_analyzer with Headway, in all its modes."""
