"""For every test."""

from multiprocessing import resource_tracker

from hypothesis import settings

# Python starts it when it is first needed. If that is while a cluster runs, it ends with it, and Python complains.
resource_tracker.ensure_running()

# How long one example takes says something about the machine, and nothing about the code.
settings.register_profile("headway", deadline=None)
settings.load_profile("headway")
