"""The Ray deployment of the front, which answers requests that belong to no model. It only constructs and delegates."""

import os
from collections.abc import Sequence
from functools import partial
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
from serving.cluster.environment import cors
from serving.cluster.feature_history import begin_draining, log_place, open_log, open_spool
from serving.cluster.features import open_features
from serving.cluster.front.audit import audit_pages
from serving.cluster.front.catalog import Catalog
from serving.cluster.front.collector import Collector
from serving.cluster.front.control import Control, Deploy
from serving.cluster.front.dashboard import Dashboard
from serving.cluster.front.pages import admin_token, debug_pages, metric_pages
from serving.cluster.front.switches import ClusterSwitches
from serving.cluster.replica import grpc_door, http_door
from serving.cluster.replica.heap import Heap, malloc_trim
from serving.cluster.replica.http_door import App
from serving.config import Settings
from serving.telemetry.features import FeatureRecorder

if TYPE_CHECKING:
    from serving.features.offline.spool import Spool
    from serving.gateway.features import OnlineFeatures


@serve.deployment
@serve.ingress()
class Front:
    """Answers requests that belong to no model: the server's health and metadata, the list of models, 404s."""

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits it
        self, settings: Settings, configured: Sequence[ModelEntry], access: Access, *, deploy: Deploy
    ) -> None:
        server = settings.server
        catalog = Catalog(configured, explicit=server.model_control)
        self.collector = collector = Collector({entry.name: entry.version for entry in configured})

        def changed() -> None:
            catalog.forget()
            collector.forget()

        gate, self._keeping = await open_gate(access, admin_token(server.admin_token_file))
        spool = open_spool(settings)
        # Without feature views nothing here is counted.
        quota, self._sharing = await open_quota(access, f"front-{os.getpid()}") if settings.features else (None, None)
        read_features = FeatureRecorder()
        operations = Operations(
            catalog.models,
            name=server.name,
            counts=partial(model_counts, collector, configured),
            regions=shared_regions(by_tenant=server.needs_credentials) if server.shared_memory else None,
            control=Control(settings, deploy=deploy, changed=changed) if server.model_control else None,
            switches=ClusterSwitches(collector, may_change=server.settings_control),
            features=await _features(settings, spool, quota, read_features),
            gate=gate,
        )
        self._draining = begin_draining(spool) if spool else None
        kept = own_folder() / "history.json"
        self.dashboard = Dashboard(collector.snapshot, decisions.recent, name=server.name, file=kept)
        await self.dashboard.begin()
        pages = {
            **metric_pages(collector, server.http_port, read_features.counts if settings.features else None),
            **debug_pages(collector),
            **self.dashboard.pages(),
            **audit_pages(access.state, name=server.name),
        }
        self.http: App = FrontApp(operations, pages=pages, cors=cors(server.allowed_origins))
        http_door.entrance.register("/", self.http, lambda: True)
        relay = grpc_relay(server)
        calls = GrpcService([], operations, relay=relay)
        grpc_door.entrance.register(calls, max_message_bytes=server.max_body_bytes)
        self._heap = Heap(malloc_trim())

    def check_health(self) -> None:
        self._heap.look()

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
        settings.features.declared(), server.redis, counts, server.tenant_header, quota, spool, log
    )
    await features.connect()
    return features


async def model_counts(collector: Collector, configured: Sequence[ModelEntry]) -> list[dict[str, Any]]:
    """Returns the entries of `model_stats` in the statistics of all models."""
    found = await collector.statistics()
    return [model_statistics(entry.name, entry.version, found[entry.name]) for entry in configured]
