"""Opens the feature store in a process of Ray Serve, and puts it in front of a model whose inputs it fills."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from models.spec import ModelSpec, TensorSpec
from serving.api.admission.quota import Quota
from serving.cluster.feature_history import LogPlace, log_place, open_log
from serving.cluster.redis import connected
from serving.config import RedisSettings, Settings
from serving.core.backend import Backend
from serving.core.sizes import LARGEST_ROWS
from serving.features.binding import bound
from serving.features.rows import BadField, Row
from serving.features.views import FeatureView, FeatureViews
from serving.telemetry.features import FeatureRecorder
from serving.telemetry.recorder import Recorder

if TYPE_CHECKING:
    from serving.features.backend import FeatureBackend
    from serving.features.offline.spool import Spool
    from serving.gateway.features import Make, OnlineFeatures
    from serving.telemetry.served_features import ServedLog

STORE_LIMIT_S = 1.0  # for one round trip, also for opening a connection; who looks features up waits for a shorter time


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """The features of a model, as its replicas need them. See `features.binding.Binding`.

    redis: where the features are kept; None: nowhere. log: where a sample of what is served is logged; None: nowhere.
    """

    views: FeatureViews
    entity_input: str
    inputs: Mapping[str, Sequence[str]]
    redis: RedisSettings | None
    log: LogPlace | None = None


def bound_features(settings: Settings, application: str) -> Bound | None:
    """Returns the features of the model of this application, None if it has none."""
    told = settings.applications()[application].features
    if told is None or settings.features is None:
        return None
    return Bound(
        views=settings.features.declared(),
        entity_input=told.entity_input,
        inputs=told.inputs,
        redis=settings.server.redis,
        log=log_place(settings),
    )


def shown(spec: ModelSpec, told: Bound | None) -> ModelSpec:
    """Returns the spec as clients see it: with the ids of entities in place of the inputs that features fill."""
    if told is None:
        return spec
    rest = tuple(tensor for tensor in spec.inputs if tensor.name not in told.inputs)
    return replace(spec, inputs=(TensorSpec(name=told.entity_input, datatype="BYTES", shape=(-1, 1)), *rest))


def open_binding(
    told: Bound | None, spec: ModelSpec, backend: Backend, recorder: Recorder, counts: FeatureRecorder
) -> "FeatureBackend | None":
    """Returns the backend that fills the model's inputs with features in front of another; None without features.

    Raises ModuleNotFoundError with advice without `headway[redis]`."""
    if told is None:
        return None
    from serving.features.backend import FeatureBackend

    return FeatureBackend(
        backend,
        bound(told.views, told.entity_input, told.inputs),
        open_features(told.views, told.redis, counts, log=open_log(told.log)),
        datatypes={tensor.name: tensor.datatype for tensor in spec.inputs},
        most_rows=spec.max_batch_rows or LARGEST_ROWS,
        ended=recorder.request_ended,
    )


def open_features(
    views: FeatureViews,
    redis: RedisSettings | None,
    observer: FeatureRecorder,
    tenant_header: str = "",
    quota: Quota | None = None,
    spool: "Spool | None" = None,
    log: "ServedLog | None" = None,
    make: "Make | None" = None,
) -> "OnlineFeatures":
    """Returns the feature store of these views. Connections are opened when they are first used.

    observer, tenant_header, quota, spool, log, make: see OnlineFeatures. Raises ModuleNotFoundError with advice without
    `headway[redis]`."""
    # Imported here, so that servers without a feature store need no package for it.
    from random import random

    from models.breaker import Breaker
    from serving.core.clock import SystemClock
    from serving.gateway.features import OnlineFeatures
    from serving.store.features import FeatureStore, NoFeatureStore, RedisFeatureStore
    from serving.store.guard import Guard
    from serving.store.keys import Keys

    reads, writes = (Guard(Breaker(random), SystemClock(), STORE_LIMIT_S) for _ in range(2))
    store: FeatureStore = NoFeatureStore()
    if redis is not None:
        client, writes = connected(redis, STORE_LIMIT_S, is_bounded=True)
        store = RedisFeatureStore(client, Keys())
    return OnlineFeatures(
        views,
        store,
        reads=reads,
        writes=writes,
        observer=observer,
        tenant_header=tenant_header,
        quota=quota,
        spool=spool,
        log=log,
        make=make,
    )


def raw_rows(folder: str | None) -> "Make":
    """Returns the function that makes rows of raw ones. folder: of the settings, beside which functions may lie."""

    def make(view: FeatureView, given: Sequence[object], now_ms: int) -> list[Row]:
        # Imported here, so that servers whose features are never made of raw columns need no pyarrow.
        try:
            from serving.features.offline.pushing import rows_of_raw
            from serving.features.offline.transform import BadTransformation, transformation_of
        except ModuleNotFoundError as error:
            raise BadField("raw", f"{error.name} is not installed on this server: headway[features]") from None
        try:
            transformation = transformation_of(view, folder)
        except BadTransformation as error:
            raise BadField("raw", str(error)) from None
        return rows_of_raw(view, transformation, given, now_ms=now_ms)

    return make
