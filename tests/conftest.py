"""For every test."""

from collections.abc import Generator
from multiprocessing import resource_tracker

import pytest
from hypothesis import settings

from tests.guards import Guard, ray_allowed

# Python starts it when it is first needed. If that is while a cluster runs, it ends with it, and Python complains.
resource_tracker.ensure_running()

# How long one example takes says something about the machine, and nothing about the code.
settings.register_profile("headway", deadline=None)
settings.load_profile("headway")

GUARD = Guard()
GUARD.watch()


def pytest_collection_finish() -> None:
    GUARD.watch_ray()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """With its fixtures, of a module or package too: the first test that wants one sets it up, the last ends it."""
    marks = {mark.name for mark in item.iter_markers()}
    with ray_allowed(GUARD, bool(marks & {"ray", "chaos"})):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, object, object]:
    done = yield
    if found := GUARD.blocked():
        pytest.fail("\n".join(found), pytrace=False)
    return done
