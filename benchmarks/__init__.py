"""Measurements that take more than a test's time; each subfolder says how to run it."""
