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
from serving.names import FRONT, prefix_of


def applications(
    settings: Settings, *, gpus: bool, free: Mapping[str, float]
) -> Iterator[tuple[str, str, Application]]:
    """Yields (name, route prefix, application) of all applications, the front first.

    gpus: whether the cluster has GPUs. If not, replicas request none, because they would wait for one for ever; each
        warns that it runs on the CPU.
    free: the resources "CPU" and "GPU" that are free in the cluster, for updates.
    """
    yield FRONT, "/", front(settings, gpus=gpus)
    for application, spec in zip(settings.applications(), settings.model_specs(), strict=True):
        if not gpus and spec.resources.gpus:
            spec = replace(spec, resources=replace(spec.resources, gpus=0.0))
        yield (
            application,
            prefix_of(application, spec.name, spec.version),
            model(settings, application, spec, free=free),
        )


def front(settings: Settings, *, gpus: bool, deploys: bool = True) -> Application:
    """Returns the front. deploys: whether it may deploy applications, which else come from a manifest."""
    configured = [
        ModelEntry(
            name=spec.name,
            version=spec.version,
            application=application,
            signature=signature(shown(spec, bound_features(settings, application))),
        )
        for application, spec in zip(settings.applications(), settings.model_specs(), strict=True)
    ]
    deployment = Front.options(  # type: ignore[attr-defined]  # Ray's decorator makes a Deployment of the class
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=1000,
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
        logging_config=LOGGING,
    )
    return deployment.bind(
        settings, configured, access(settings), deploy=partial(deploy, gpus=gpus) if deploys else None
    )


def model(
    settings: Settings, application: str, spec: ModelSpec, *, free: Mapping[str, float], name: str = ""
) -> Application:
    """Returns an application of the settings. name: the one that it is deployed under, if another."""
    scaling = autoscaling_config(settings.applications()[application], name or application)
    options = options_of(spec, scaling, surge=surge_percent(spec, free))
    deployment = ModelReplica.options(**options)  # type: ignore[attr-defined]  # as above
    server = settings.server
    return deployment.bind(
        spec,
        server.max_body_bytes,
        access(settings),
        settings.tenant_weights(application),
        watching(server, spec.resources),
        server.shared_memory,
        grpc_relay(server),
        caching(settings, application),
        bound_features(settings, application),
        artifact_of(settings, application),
    )


def front_application(args: dict[str, Any]) -> Application:
    """Builds the front for a manifest. args: `{settings: {...}}`."""
    return front(_settings(args), gpus=True, deploys=False)


def model_application(args: dict[str, Any]) -> Application:
    """Builds the application of a model for a manifest. args: `{settings: {...}, model: name}`, and `application` for
    a version that is not the first. The settings hold only that version.

    Raises ValueError if the settings have no such model."""
    settings = _settings(args)
    for spec in settings.model_specs():
        if spec.name == args["model"]:
            return model(settings, spec.name, spec, free=ray.available_resources(), name=args.get("application", ""))
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
