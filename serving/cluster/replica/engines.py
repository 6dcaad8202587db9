"""Opens the engine that a model's spec asks for. Does not import Ray, so tests open their engines here too."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext

import numpy as np

from models.cores import control_groups
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
    """Loads the model, once for each lane, and opens its engine for requests.

    turn: held while a model is measured on the CPU, because other replicas may measure there too. The other parameters
    are those of `Engine`. Raises `ModelNotLoadable` with a sentence; logs the traceback."""
    try:
        return await _opened(spec, weights, observer, report, turn)
    except (Exception, SystemExit) as error:
        logger.error("model %s cannot be served\n%s", spec.name, traceback_text(spec, error))
        cause = sentence(spec, error)
    # Outside of the handler: otherwise the factory's error would be its context and show the values of the options.
    raise ModelNotLoadable(cause)


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
        groups = control_groups() if models[0].device == "cpu" else ()
        engine = Engine(models, weights=weights, observer=observer, groups=groups, report=report)
    async with turn if turn is not None and engine.model.device == "cpu" else nullcontext():
        await engine.open()
    return engine


def _zeros(tensor: TensorSpec) -> np.ndarray:
    """Returns one row of zeros, with a batch dimension if the model is batched."""
    return np.zeros((1, *tensor.row_shape) if tensor.batched else tensor.row_shape, numpy_type(tensor.datatype))
