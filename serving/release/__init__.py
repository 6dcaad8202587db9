"""Releases: a version of a model takes over its traffic step by step, each step judged, or is rolled back."""
