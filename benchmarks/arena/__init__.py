"""Headway and other servers under the same load, in one table and one chart. Run `python -m benchmarks.arena`."""
