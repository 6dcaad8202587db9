"""Tests how a version of Ray Serve's stands for a release, by the states of its replicas."""

import pytest

from serving.cluster.front.details import Application, Deployment, Replica
from serving.cluster.front.releasing import standing_of
from serving.release.deciding import Standing


def application(status: str, *states: str) -> Application:
    replicas = tuple(Replica(str(number), state) for number, state in enumerate(states))
    return Application(status, "", {"model": Deployment("the weights are gone", 1, None, replicas)})


@pytest.mark.parametrize(
    ("found", "standing"),
    [
        (None, Standing.ABSENT),
        (application("DELETING", "STOPPING"), Standing.ABSENT),
        (application("DEPLOYING", "STARTING"), Standing.LOADING),
        (application("DEPLOYING", "RUNNING", "STARTING"), Standing.READY),
        (application("RUNNING", "RUNNING"), Standing.READY),
        (application("RUNNING"), Standing.READY),  # it sleeps
        (application("UNHEALTHY", "STARTING"), Standing.FAILED),
        (application("UNHEALTHY", "RUNNING"), Standing.READY),
        (application("DEPLOY_FAILED"), Standing.FAILED),
    ],
)
def test_a_version_that_has_a_running_replica_is_ready(found: Application | None, standing: Standing) -> None:
    assert standing_of(found)[0] is standing


def test_a_version_that_failed_says_why() -> None:
    assert standing_of(application("DEPLOY_FAILED"))[1] == "the weights are gone"
