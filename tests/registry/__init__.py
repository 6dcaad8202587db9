"""Tests the registry: records, what follows from them, what a version is made of, and what is refused."""
