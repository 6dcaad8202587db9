"""Headway against everyone: the same work at the same rates, one table, one picture. `python -m benchmarks.arena`."""
