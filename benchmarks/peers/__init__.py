"""Headway beside other model servers: the same models, the same load, one run. Start it with `python -m benchmarks.peers`."""
