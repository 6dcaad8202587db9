"""Tests the bounds that are derived for Ray from a model's limits."""

from dataclasses import replace

import pytest

from models.reference import noop_spec
from models.spec import Resources
from serving.cluster.limits import KEEP_ALIVE_S, RAY_DRAIN_S, surge_percent


@pytest.mark.parametrize(
    ("replicas", "needs", "free", "percent"),
    [
        (1, Resources(cpus=1), {"CPU": 1}, 100),
        (1, Resources(cpus=1), {"CPU": 0.5}, 0),
        (1, Resources(cpus=1), {}, 0),
        (4, Resources(cpus=1), {"CPU": 2}, 50),
        (4, Resources(cpus=1), {"CPU": 40}, 100),
        (2, Resources(cpus=1, gpus=1), {"CPU": 40}, 0),
        (2, Resources(cpus=1, gpus=1), {"CPU": 40, "GPU": 1}, 50),
        (3, Resources(cpus=0), {}, 100),
    ],
)
def test_an_update_starts_as_many_new_replicas_first_as_there_is_room_for(
    replicas: int, needs: Resources, free: dict[str, float], percent: int
) -> None:
    assert surge_percent(replace(noop_spec(), replicas=replicas, resources=needs), free) == percent


def test_an_idle_connection_ends_before_the_replicas_of_an_old_list_do() -> None:
    assert KEEP_ALIVE_S < RAY_DRAIN_S
