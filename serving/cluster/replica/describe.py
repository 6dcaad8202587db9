"""Builds the description of a loaded model that the protocol shows to clients."""

from collections.abc import Callable, Sequence
from typing import Any

from models.base import TunableModel
from models.spec import TensorSpec
from serving.api.admission.bound import NO_BOUND, Bound
from serving.api.admission.room import Room
from serving.api.served import ServedModel
from serving.cluster.environment import has_our_haproxy
from serving.cluster.replica.engines import AnyEngine
from serving.core.witness import Witness
from serving.protocol.messages import TensorDescription
from serving.runtime.engine import Engine
from serving.runtime.generation import GeneratingEngine
from serving.runtime.sequences import SequenceEngine


def served_model(
    engine: AnyEngine,
    max_body_bytes: int,
    whereabouts: Callable[[], dict[str, str]],
    witnesses: Sequence[Witness] = (),
    backend: Any = None,
    inputs: Sequence[TensorSpec] | None = None,
    **more: Any,
) -> ServedModel:
    """Builds the `ServedModel` of an engine.

    whereabouts: returns the replica and its doors, for the model's config. backend: what requests are submitted to, if
    something stands in front of the engine: a cache, say. inputs: those that clients send, if not the engine's. more:
    `of_failures`, `regions`, `totals`, `trace` and other fields of `ServedModel`."""
    spec = engine.spec
    backend = backend or engine
    return ServedModel(
        name=spec.name,
        version=spec.version,
        platform="headway_pytorch",
        description=spec.description,
        inputs=tuple(map(_description, spec.inputs if inputs is None else inputs)),
        outputs=tuple(map(_description, spec.outputs)),
        labels=spec.labels,
        example=spec.example,
        config=lambda: learned(engine) | whereabouts(),
        backend=backend,
        sequencer=backend if isinstance(engine, SequenceEngine) else None,
        generator=backend if isinstance(engine, GeneratingEngine) else None,
        takes_parameters=getattr(engine.model, "takes_parameters", False),
        max_body_bytes=max_body_bytes,
        room=Room(max_body_bytes),
        witnesses=witnesses,
        **more,
    )


def bound_of(engine: AnyEngine) -> Bound:
    """Returns what tells HAProxy the bound on requests in flight, for models with a latency budget.

    Not for models with state: a request of a sequence that has begun is never refused for the load of others."""
    intake = engine.intake if isinstance(engine, Engine) and not isinstance(engine, SequenceEngine) else None
    return Bound(lambda: intake.bound, intake.hold_ms) if intake is not None and has_our_haproxy() else NO_BOUND


def learned(engine: AnyEngine) -> dict[str, Any]:
    """Returns the values that the engine has measured or chosen, for the model's config."""
    if isinstance(engine, GeneratingEngine):
        return {"device": engine.model.device} | engine.facts()
    batcher = engine.batcher
    length = batcher.sizes.lengths[-1]
    useful_rows = batcher.sizes.useful_rows(batcher.latency, length)
    sequences = engine.facts() if isinstance(engine, SequenceEngine) else {}
    computed = engine.model.facts() if isinstance(engine.model, TunableModel) else {}
    return (
        sequences
        | computed
        | {
            "device": engine.model.device,
            "max_batch_rows": batcher.sizes.largest_rows,
            "useful_batch_rows": useful_rows,
            "predicted_ms_alone": batcher.latency.predict_ns(1, length) / 1e6,
            "predicted_ms_useful_batch": batcher.latency.predict_ns(useful_rows, length) / 1e6,
            "latency_budget_ms": engine.budget_ms,
            "most_in_flight": None if engine.intake is None else engine.intake.bound,
        }
    )


def _description(tensor: TensorSpec) -> TensorDescription:
    return TensorDescription(tensor.name, tensor.datatype, tensor.shape, tensor.batched, tensor.optional)
