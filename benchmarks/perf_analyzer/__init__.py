"""Triton's own load generator against Headway, over every way it knows."""
