"""Fakes for tests: a manual clock, scripted models, backends and drivers. Tests hold them to the real contracts."""
