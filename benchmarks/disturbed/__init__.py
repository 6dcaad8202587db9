"""A server beside a disturbance, in simulation and measured. Run `python -m benchmarks.disturbed`."""
