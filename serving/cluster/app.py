"""Builds Ray Serve applications from the settings: one per model, and the front, which answers all other requests.

Manifests refer to the functions by import path (`serving.cluster.app:model_application`); the launcher calls them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import ray
from ray import serve
from ray.serve import Application

from models.spec import ModelSpec
from serving.api.entry import ModelEntry
from serving.api.http.openapi.document import signature
from serving.cluster.access import access
from serving.cluster.autoscale import autoscaling_config
from serving.cluster.deployments import HEALTH_CHECK_PERIOD_S, LOGGING, grpc_relay, options_of
from serving.cluster.features import bound_features, shown
from serving.cluster.front.front import Front
from serving.cluster.limits import surge_percent
from serving.cluster.registered import artifact_of, resolved
from serving.cluster.replica.caching import caching
from serving.cluster.replica.replica import ModelReplica
from serving.cluster.replica.watching import watching
from serving.config import Settings
from serving.names import FRONT, model_path


def applications(
    settings: Settings, *, gpus: bool, free: Mapping[str, float]
) -> Iterator[tuple[str, str, Application]]:
    """Yields (name, route prefix, application) of all applications, the front first.

    gpus: whether the cluster has GPUs. If not, replicas request none, because they would wait for one for ever; each
        warns that it runs on the CPU.
    free: the resources "CPU" and "GPU" that are free in the cluster, for updates.
    """
    yield FRONT, "/", front(settings, gpus=gpus)
    for spec in settings.model_specs():
        if not gpus and spec.resources.gpus:
            spec = replace(spec, resources=replace(spec.resources, gpus=0.0))
        yield spec.name, model_path(spec.name), model(settings, spec, free=free)


def front(settings: Settings, *, gpus: bool) -> Application:
    configured = [
        ModelEntry(
            name=spec.name,
            version=spec.version,
            signature=signature(shown(spec, bound_features(settings, spec.name))),
        )
        for spec in settings.model_specs()
    ]
    deployment = Front.options(  # type: ignore[attr-defined]  # Ray's decorator makes a Deployment of the class
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=1000,
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
        logging_config=LOGGING,
    )
    return deployment.bind(settings, configured, access(settings), deploy=partial(deploy, settings, gpus=gpus))


def model(settings: Settings, spec: ModelSpec, *, free: Mapping[str, float]) -> Application:
    scaling = autoscaling_config(settings.model(spec.name))
    options = options_of(spec, scaling, surge=surge_percent(spec, free))
    deployment = ModelReplica.options(**options)  # type: ignore[attr-defined]  # as above
    server = settings.server
    return deployment.bind(
        spec,
        server.max_body_bytes,
        access(settings),
        settings.tenant_weights(spec.name),
        watching(server, spec.resources),
        server.shared_memory,
        grpc_relay(server),
        caching(settings, spec.name),
        bound_features(settings, spec.name),
        artifact_of(settings, spec.name),
    )


def front_application(args: dict[str, Any]) -> Application:
    """Builds the front for a manifest. args: `{settings: {...}}`."""
    return front(_settings(args), gpus=True)


def model_application(args: dict[str, Any]) -> Application:
    """Builds the application of a model for a manifest. args: `{settings: {...}, model: name}`.

    Raises ValueError if the settings have no such model."""
    settings = _settings(args)
    for spec in settings.model_specs():
        if spec.name == args["model"]:
            return model(settings, spec, free=ray.available_resources())
    raise ValueError(f"model: {args['model']!r} is not among the settings' models")


def _settings(args: dict[str, Any]) -> Settings:
    """Returns the settings in a manifest, with what the registry tells of their models."""
    return resolved(Settings.model_validate(args["settings"]))


def deploy(settings: Settings, *, gpus: bool, only: str | None = None, free: Mapping[str, float] | None = None) -> None:
    """Deploys all applications, or only one, to the running Ray, and returns without waiting for them. A model that is
    already deployed is updated replica by replica.

    only: the name of the one application to deploy.
    free: the resources "CPU" and "GPU" that are free in the cluster; None: queries Ray.
    """
    if free is None:
        free = ray.available_resources()
    targets = [
        serve.RunTarget(target=application, name=name, route_prefix=prefix, logging_config={"enable_access_log": False})
        for name, prefix, application in applications(settings, gpus=gpus, free=free)
        if only in (None, name)
    ]
    serve.run_many(targets, wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
