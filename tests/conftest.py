"""Hooks and settings for all tests: the guards, and the profile of Hypothesis."""

import os
from collections.abc import Generator
from multiprocessing import resource_tracker

import pytest
from hypothesis import settings

from tests.guards import Guard, ray_allowed
from tests.s3 import bucket, moto  # noqa: F401

# Otherwise Python starts the tracker when it is first needed. If a Ray cluster runs then, the tracker ends together
# with the cluster, and Python warns.
resource_tracker.ensure_running()

# Ray starts its processes with a function to call between fork and exec. While a thread of a test uses gRPC, the
# handlers that gRPC runs at a fork abort the new process there, and Ray waits in vain for it.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# No deadline: how long one example takes depends on the machine, not on the code.
settings.register_profile("headway", deadline=None)
settings.load_profile("headway")

GUARD = Guard()
GUARD.watch()


def pytest_collection_finish() -> None:
    GUARD.watch_ray()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Allows Ray for a marked test and for the fixtures that are set up or closed with it, those of a module or package
    included."""
    marks = {mark.name for mark in item.iter_markers()}
    with ray_allowed(GUARD, bool(marks & {"ray", "chaos"})):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, object, object]:
    done = yield
    if found := GUARD.blocked():
        pytest.fail("\n".join(found), pytrace=False)
    return done
