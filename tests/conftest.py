"""For every test."""

from hypothesis import settings

# How long one example takes says something about the machine, and nothing about the code.
settings.register_profile("headway", deadline=None)
settings.load_profile("headway")
