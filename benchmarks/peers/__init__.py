"""Headway beside other model servers: same models, same load, one run. `python -m benchmarks.peers` starts it."""
