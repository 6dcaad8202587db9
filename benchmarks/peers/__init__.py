"""Headway and other model servers with the same models under the same load. Run `python -m benchmarks.peers`."""
