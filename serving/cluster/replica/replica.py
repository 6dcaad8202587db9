"""The Ray deployment of a model: constructs, checks health, delegates.

Ray pickles a decorated class by value, with every global that it names. Therefore the class refers to
`http_door.entrance` through the module: a replica then finds its own object, not a copy from the deploying process.
"""

import asyncio
import gc
import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve._private.logging_utils import get_serve_logs_dir

from models.cores import usable_cores
from models.spec import ModelSpec
from serving.api.entry import ModelEntry
from serving.api.feedback import FeedbackBox
from serving.api.grpc.service import GrpcService
from serving.api.http.app import ModelApp
from serving.api.operations import Operations
from serving.cluster.access import Access, open_gate, open_quota
from serving.cluster.deployments import own_folder, shared_regions
from serving.cluster.environment import cors
from serving.cluster.features import Bound, open_binding, shown
from serving.cluster.front.collector import Collector
from serving.cluster.front.grpc_relay import GrpcRelay
from serving.cluster.front.pages import admin_token_here
from serving.cluster.front.switches import ClusterSwitches, LogSwitch, TraceSwitch
from serving.cluster.limits import check_memory
from serving.cluster.registered import Artifact, fetched
from serving.cluster.replica import debug, grpc_door, http_door, measuring
from serving.cluster.replica.caching import Caching, open_cache
from serving.cluster.replica.counting import QuotaRecorder, quota_reader
from serving.cluster.replica.describe import bound_of, served_model
from serving.cluster.replica.engines import open_engine
from serving.cluster.replica.evidence import Evidence
from serving.cluster.replica.heap import Heap, malloc_trim
from serving.cluster.replica.http_door import App
from serving.cluster.replica.loop_watch import LoopWatch
from serving.cluster.replica.snapshots import SnapshotSource, memory_bytes
from serving.cluster.replica.trial import Trial
from serving.cluster.replica.watching import Watching, recorded, witnesses
from serving.core.backend import Backend
from serving.core.errors import LaneLost
from serving.core.statistics import ModelStatistics, WireTimes
from serving.core.witness import Witness
from serving.names import model_path
from serving.protocol.errors import BadMessage
from serving.runtime.engine import Engine
from serving.telemetry.failures import FailureLog
from serving.telemetry.features import FeatureRecorder
from serving.telemetry.gpu import GpuSampler, visible_devices
from serving.telemetry.predictions import Predictions
from serving.telemetry.recorder import Recorder
from serving.telemetry.snapshot import ReplicaSnapshot
from serving.telemetry.trace import RequestTraces
from serving.traffic.feedback import Report

logger = logging.getLogger("ray.serve")
SWITCH_INTERVAL_S = 0.0001


@serve.deployment
@serve.ingress()
class ModelReplica:
    """One replica of one model: its engine and the app that implements the protocol."""

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits it
        self,
        spec: ModelSpec,
        max_body_bytes: int,
        access: Access,
        weights: dict[str, float],
        watching: Watching,
        shared_memory: bool,
        relay: GrpcRelay | None = None,
        caching: Caching | None = None,
        features: Bound | None = None,
        artifact: Artifact | None = None,
    ) -> None:
        if artifact is not None:
            spec = await fetched(spec, artifact)
        context = serve.get_replica_context()
        self._name = context.replica_tag
        quota, self._sharing = await open_quota(access, self._name)
        recorder = Recorder(weights) if quota is None else QuotaRecorder(weights, quota)
        self.engine = await open_engine(
            spec,
            weights=weights,
            observer=recorder,
            report=lambda text: logger.info("%s: %s", spec.name, text),
            turn=measuring.turn(own_folder(), usable_cores()),
        )
        siblings = Collector({context.app_name: spec.version})
        self._cache = None
        if isinstance(self.engine, Engine):
            self._cache = await open_cache(
                caching, self.engine, recorder, siblings, lambda: serve.status().applications
            )
        self._backend: Backend = self._cache.backend if self._cache else self.engine
        read_features = FeatureRecorder()
        self._features = open_binding(features, spec, self._backend, recorder, read_features)
        if self._features is not None:
            self._backend = self._features
            await self._features.connect()
        offered = shown(spec, features)
        self._stack_dump = debug.StackDump(Path(get_serve_logs_dir(), f"stacks_{spec.name}_{os.getpid()}.log"))
        self._loop_watch = LoopWatch()
        self._heap = Heap(malloc_trim())
        self._gpus = GpuSampler(devices=visible_devices(os.environ))
        if spec.resources.gpus:
            self._gpus.open()
        predictions = Predictions(spec.labels, batched=spec.batched) if spec.labels else None
        wire = WireTimes()
        self._snapshots = SnapshotSource(
            self.engine,
            recorder,
            replica=self._name,
            node=ray.util.get_node_ip_address(),
            price_per_hour=watching.price_per_hour,
            wire=wire,
            read_gpus=lambda: self._gpus.readings,
            read_quotas=quota_reader(quota, access.tenants),
            backend=self._backend,
            read_cache=self._cache.counts if self._cache else None,
            predictions=predictions.counts if predictions else {},
            features=read_features.counts if self._features is not None else None,
        )
        told: list[Witness] = [*witnesses(watching, spec), *([predictions] if predictions else [])]
        box = FeedbackBox()
        read_cache = self._cache.counts if self._cache else None
        self._evidence = Evidence(recorder, replica=self._name, box=box, witnesses=told, read_cache=read_cache)
        self._log = LogSwitch(logger)
        self._trace = TraceSwitch(next((witness for witness in told if isinstance(witness, RequestTraces)), None))
        switches = ClusterSwitches(siblings, may_change=watching.settings_control)

        async def totals() -> ModelStatistics:
            return (await siblings.statistics())[context.app_name]

        served = served_model(
            self.engine,
            max_body_bytes,
            partial(whereabouts, self._name),
            told,
            recorded(watching, offered, self._backend),
            offered.inputs,
            of_failures=FailureLog(logger, model=spec.name),
            regions=shared_regions(by_tenant=access.auth is not None) if shared_memory else None,
            totals=totals if spec.replicas > 1 else None,
            trace=partial(switches.trace, model=spec.name),
            tells_features=self._features is not None,
            clear_cache=self._cache.clear if self._cache else None,
            wire=wire,
            bound=bound_of(self.engine),
            quota=quota,
            feedback=box,
        )
        self._trial = Trial(served, self._backend)
        gate, self._keeping = await open_gate(access, admin_token_here(watching.admin_token_file))
        named = access.tenant_header
        self.http: App = ModelApp(served, tenant_header=named, gate=gate, cors=cors(watching.allowed_origins))
        kept_out = self.engine.kept_out if isinstance(self.engine, Engine) else http_door.keep_no_count
        http_door.entrance.register(model_path(spec.name), self.http, self.takes_requests, kept_out)
        calls = GrpcService([served], Operations(self.entries, gate=gate), tenant_header=named, relay=relay)
        grpc_door.entrance.register(calls, takes_requests=self.takes_requests, max_message_bytes=max_body_bytes)
        # Objects that exist now stay: the garbage collector need not traverse those of torch and Ray again.
        gc.collect()
        gc.freeze()
        # A forward pass needs the interpreter lock for each operation, and the event loop answers whole batches at a
        # time: with Python's 5 ms the device would wait for it. Worth 15 % of the throughput of a small model.
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        logger.info("%s ready on %s", spec.name, self.engine.model.device)

    async def entries(self) -> list[ModelEntry]:
        """Returns the entry of this model for the repository index."""
        spec = self.engine.spec
        return [
            ModelEntry(name=spec.name, version=spec.version, state="READY" if self.engine.is_ready() else "UNAVAILABLE")
        ]

    async def statistics(self) -> ModelStatistics:
        """Returns the statistics of this replica."""
        return self._backend.statistics()

    async def evidence(self, asked: list[tuple[str, str]]) -> Report:
        """Returns what a release of this model is judged by; see `Evidence.report`."""
        return self._evidence.report(asked)

    async def clear_cache(self, tenant: str | None) -> int:
        """Drops the answers that this replica has cached, all or those of a tenant. Returns how many."""
        return await self._cache.backend.clear(tenant) if self._cache is not None else 0

    async def switch(self, what: str, changes: dict[str, Any]) -> dict[str, Any] | str:
        """Changes trace or log settings here. Returns the settings in force, or the error as text."""
        try:
            return (self._log if what == "log" else self._trace).change(changes)
        except BadMessage as error:
            return str(error)

    async def debug_state(self, watch_loop_s: float | None = None) -> dict[str, Any]:
        """Returns the state of this replica. watch_loop_s: resets the measurement of the loop's stalls and measures
        for this time."""
        told = debug.state(self.engine, self._snapshots.snapshot()) | {"loop": self._loop_watch.report()}
        if watch_loop_s is not None:
            self._loop_watch.watch(watch_loop_s)
        return told

    async def trial(self, body: bytes) -> tuple[int, bytes]:
        """Answers a request of the front's, which no client sent; see `trial.py`."""
        return await self._trial.answer(body)

    async def stacks(self) -> dict[str, Any]:
        """Returns the stacks of all threads and tasks of this replica."""
        return {"replica": self._name, "tasks": debug.tasks(asyncio.get_running_loop()), "threads": debug.threads()}

    async def snapshot(self) -> ReplicaSnapshot:
        """Returns the state and the counts of this replica; called by the front's collector."""
        return self._snapshots.snapshot()

    def __serve_build_asgi_app__(self) -> App:
        return self.http

    def takes_requests(self) -> bool:
        """Returns whether HAProxy may send requests here: until the engine drains, so also while Ray drains the
        replica."""
        try:
            self.engine.check_health()
        except LaneLost:
            return False
        return self.engine.is_ready()

    async def check_health(self) -> None:
        """Raises what is wrong. Ray asks on the event loop; if this were not async, in a new thread each time."""
        await self._heap.look()
        self.engine.check_health()
        check_memory(memory_bytes(), self.engine.spec.limits.max_memory_mb)

    def record_autoscaling_stats(self) -> dict[str, int | float]:
        """Returns the engine's counters for scaling, because Ray does not see requests of the fast door."""
        return self.engine.reading().as_stats()

    async def __del__(self) -> None:
        if hasattr(self, "engine"):
            if self._features is not None:
                await self._features.leave()
            if self._cache is not None:
                await self._cache.backend.leave()
            left = await self.engine.drain(timeout_s=self.engine.spec.limits.forward_timeout_s)
            if left:
                logger.warning("%s: %d requests were not answered in time", self.engine.spec.name, left)
            if self._sharing is not None:
                self._sharing.cancel()  # gives back what it has leased
                await asyncio.wait([self._sharing], timeout=1)
            self.engine.close()
            self._gpus.close()
            self._stack_dump.close()
            self._loop_watch.close()


def whereabouts(replica: str) -> dict[str, str]:
    """Returns the replica's name, its open doors, and the path of plain requests behind them."""
    return {"replica": replica} | http_door.entrance.facts() | {"grpc_door": grpc_door.entrance.door}
