"""Reads what the front needs from the details of Ray Serve's controller, which describe every application and replica.

Ray's own classes for them parse each deployment's options too, which took half of the front's CPU time at rest.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray.serve.context import _get_global_client

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica of a deployment. state: by Ray's name, such as "RUNNING"."""

    replica_id: str
    state: str


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment. max_replicas: None if the number of replicas is fixed."""

    message: str
    target_num_replicas: int
    max_replicas: int | None
    replicas: tuple[Replica, ...]


@dataclass(frozen=True, slots=True)
class Application:
    """One application. status: by Ray's name, such as "DEPLOYING"."""

    status: str
    message: str
    deployments: Mapping[str, Deployment]


def serve_details() -> dict[str, Application] | None:
    """Returns the applications of Ray Serve's controller by name, of which `serve.status()` is an excerpt; None if it
    does not answer. Blocks."""
    try:
        return applications(_get_global_client().get_serve_details())
    except Exception as error:
        logger.warning("the controller does not answer: %s", error)
        return None


def applications(details: Mapping[str, Any]) -> dict[str, Application]:
    """Returns the applications in the controller's answer, which leaves out fields that were never set."""
    return {name: _application(found) for name, found in details.get("applications", {}).items()}


def _application(found: Mapping[str, Any]) -> Application:
    return Application(
        status=found["status"],
        message=found.get("message", ""),
        deployments={name: _deployment(one) for name, one in found.get("deployments", {}).items()},
    )


def _deployment(found: Mapping[str, Any]) -> Deployment:
    scaling = found.get("deployment_config", {}).get("autoscaling_config") or {}
    return Deployment(
        message=found.get("message", ""),
        target_num_replicas=found.get("target_num_replicas", 0),
        max_replicas=scaling.get("max_replicas"),
        replicas=tuple(Replica(one["replica_id"], one["state"]) for one in found.get("replicas", ())),
    )
