"""The Ray deployment of the front, which answers requests that belong to no model. It only constructs and delegates."""

import asyncio
import os
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ray import serve

from serving.api.admission.quota import Quota
from serving.api.entry import ModelEntry
from serving.api.grpc.service import GrpcService
from serving.api.http.app import FrontApp
from serving.api.metadata import model_statistics
from serving.api.operations import Operations
from serving.cluster import decisions
from serving.cluster.access import Access, open_gate, open_quota
from serving.cluster.deployments import grpc_relay, own_folder, shared_regions
from serving.cluster.environment import cors, has_our_haproxy
from serving.cluster.feature_history import begin_draining, history_place, log_place, open_log, open_spool
from serving.cluster.features import open_features, raw_rows
from serving.cluster.front.audit import audit_pages
from serving.cluster.front.catalog import Catalog
from serving.cluster.front.collector import Collector
from serving.cluster.front.control import Control, DeployOf, control_of
from serving.cluster.front.dashboard import Dashboard
from serving.cluster.front.pages import admin_token, debug_pages, metric_pages
from serving.cluster.front.releases import FrontReleases
from serving.cluster.front.releases_page import releases_pages
from serving.cluster.front.releasing import has_registry, open_releases
from serving.cluster.front.routing import RouteControl
from serving.cluster.front.switches import ClusterSwitches
from serving.cluster.front.versions import Versions
from serving.cluster.replica import grpc_door, http_door
from serving.cluster.replica.heap import Heap, malloc_trim
from serving.cluster.replica.http_door import App
from serving.config import Settings
from serving.registry.log import ModelLog
from serving.store.objects import open_store
from serving.store.place import registry_place
from serving.telemetry.features import FeatureRecorder

if TYPE_CHECKING:
    from serving.features.offline.spool import Spool
    from serving.gateway.features import OnlineFeatures


@serve.deployment
@serve.ingress()
class Front:
    """Answers requests that belong to no model: the server's health and metadata, the list of models, 404s."""

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits it
        self, settings: Settings, configured: Sequence[ModelEntry], access: Access, *, deploy: DeployOf | None
    ) -> None:
        server = settings.server
        catalog = Catalog(configured, explicit=server.model_control)
        self.collector = collector = Collector({})

        def changed() -> None:
            catalog.forget()
            collector.forget()

        logs = open_logs(settings)
        self.routes = routes = RouteControl(logs, splits=has_our_haproxy())

        def served(versions: Versions) -> None:
            catalog.configure(versions.entries())
            collector.versions = {entry.application: entry.version for entry in versions.entries()}
            collector.forget()
            routes.serve(versions.served())

        control = partial(control_of, deploy) if deploy else None
        self.versions = Versions(settings, list(configured), control=control, changed=served)
        await self.versions.find()
        self._following = asyncio.get_running_loop().create_task(routes.keep_following())
        gate, self._keeping = await open_gate(access, admin_token(server.admin_token_file))
        spool = open_spool(settings)
        # Without feature views nothing here is counted.
        quota, self._sharing = await open_quota(access, f"front-{os.getpid()}") if settings.features else (None, None)
        read_features = FeatureRecorder()
        self.releases: FrontReleases | None = None
        if has_our_haproxy() and find_spec("obstore") is not None:
            self.releases = open_releases(settings, logs, versions=self.versions, routes=routes, collector=collector)
        operations = Operations(
            catalog.models,
            name=server.name,
            counts=partial(model_counts, collector, self.versions),
            routes=routes,
            releases=self.releases,
            regions=shared_regions(by_tenant=server.needs_credentials) if server.shared_memory else None,
            control=Control(settings, deploy=partial(deploy, settings), changed=changed)
            if server.model_control and deploy
            else None,
            switches=ClusterSwitches(collector, may_change=server.settings_control),
            features=await _features(settings, spool, quota, read_features),
            gate=gate,
        )
        self._draining = begin_draining(spool, history_place(settings)) if spool else None
        kept = own_folder() / "history.json"
        self.dashboard = Dashboard(collector.snapshot, decisions.recent, name=server.name, file=kept)
        await self.dashboard.begin()
        pages = {
            **metric_pages(collector, server.http_port, read_features.counts if settings.features else None),
            **debug_pages(collector),
            **self.dashboard.pages(),
            **routes.pages(),
            **audit_pages(access.state, name=server.name),
            **releases_pages(self.releases, name=server.name),
        }
        self.http: App = FrontApp(operations, pages=pages, cors=cors(server.allowed_origins))
        http_door.entrance.register("/", self.http, lambda: True)
        relay = grpc_relay(server)
        calls = GrpcService([], operations, relay=relay)
        grpc_door.entrance.register(calls, max_message_bytes=server.max_body_bytes)
        self._heap = Heap(malloc_trim())
        if self.releases is not None:
            self.releases.begin(at_once=has_registry(settings))

    async def check_health(self) -> None:
        await self._heap.look()

    def __serve_build_asgi_app__(self) -> App:
        return self.http


async def _features(
    settings: Settings, spool: "Spool | None", quota: Quota | None, counts: FeatureRecorder
) -> "OnlineFeatures | None":
    """Returns the feature store, None if no views are declared."""
    if settings.features is None:
        return None
    server = settings.server
    log = open_log(log_place(settings))
    features = open_features(
        settings.features.declared(), server.redis, counts, server.tenant_header, quota, spool, log,
        raw_rows(settings.folder),
    )  # fmt: skip
    await features.connect()
    return features


async def model_counts(collector: Collector, versions: Versions) -> list[dict[str, Any]]:
    """Returns the entries of `model_stats` in the statistics of all versions of all models."""
    found = await collector.statistics()
    return [
        model_statistics(entry.name, entry.version, found[entry.application])
        for entry in versions.entries()
        if entry.application in found
    ]


def open_logs(settings: Settings) -> Callable[[str], ModelLog]:
    """Returns a function that returns the log of a model, one for all who ask. It raises NoState, StoreUnreachable, and
    ModuleNotFoundError with advice."""
    opened = cache(lambda: open_store(registry_place(settings.registry.place, settings.server.state)))
    return cache(lambda model: ModelLog(opened(), model))
