"""From what a model declares to the engine that runs it. Knows no Ray: tests open their engines here too."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext

import numpy as np

from models.datatypes import numpy_type
from models.failures import sentence, traceback_text
from models.loading import ModelNotLoadable, load_generating, load_model, load_models
from models.spec import ModelSpec, TensorSpec
from serving.core.observer import Observer
from serving.runtime.engine import Engine
from serving.runtime.generation import GeneratingEngine
from serving.runtime.sequences import SequenceEngine

logger = logging.getLogger("ray.serve")  # where `headway logs` looks

AnyEngine = Engine | GeneratingEngine


async def open_engine(
    spec: ModelSpec,
    *,
    weights: Mapping[str, float] | None = None,
    observer: Observer | None = None,
    report: Callable[[str], None] = lambda text: None,
    turn: AbstractAsyncContextManager[None] | None = None,
) -> AnyEngine:
    """Loads the model, once for each lane, and readies it for requests. turn: to be held while a model is measured on
    the CPU, where others may do the same. The rest: as `Engine` takes them.

    Raises `ModelNotLoadable` with a sentence; the traceback is logged."""
    try:
        return await _opened(spec, weights, observer, report, turn)
    except (Exception, SystemExit) as error:
        logger.error("model %s cannot be served\n%s", spec.name, traceback_text(spec, error))
        told = sentence(spec, error)
    # Outside of the handler: what the factory raised would come along, and with it the values of its options.
    raise ModelNotLoadable(told)


async def _opened(
    spec: ModelSpec,
    weights: Mapping[str, float] | None,
    observer: Observer | None,
    report: Callable[[str], None],
    turn: AbstractAsyncContextManager[None] | None,
) -> AnyEngine:
    engine: AnyEngine
    if spec.decoupled:
        engine = GeneratingEngine(await asyncio.to_thread(load_generating, spec), observer=observer)
    elif spec.state:
        model = await asyncio.to_thread(load_model, spec.with_state())
        zeros = {tensor.name: _zeros(tensor) for tensor in spec.state}
        engine = SequenceEngine([model], spec, zeros, weights=weights, observer=observer, report=report)
    else:
        models = await asyncio.to_thread(load_models, spec)
        engine = Engine(models, weights=weights, observer=observer, report=report)
    async with turn if turn is not None and engine.model.device == "cpu" else nullcontext():
        await engine.open()
    return engine


def _zeros(tensor: TensorSpec) -> np.ndarray:
    """One row, with its dimension where the model has one."""
    return np.zeros((1, *tensor.row_shape) if tensor.batched else tensor.row_shape, numpy_type(tensor.datatype))
