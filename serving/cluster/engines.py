"""From what a model declares to the engine that runs it. Knows no Ray: tests open their engines here too."""

import asyncio
from collections.abc import Callable, Mapping

from models.registry import load_generating, load_model
from models.spec import ModelSpec
from serving.runtime.engine import Engine
from serving.runtime.generation import GeneratingEngine

AnyEngine = Engine | GeneratingEngine


async def open_engine(
    spec: ModelSpec,
    *,
    weights: Mapping[str, float] | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> AnyEngine:
    """Loads the model and readies it for requests. `weights` and `report`: as `Engine` takes them."""
    engine: AnyEngine
    if spec.decoupled:
        engine = GeneratingEngine(await asyncio.to_thread(load_generating, spec))
    else:
        engine = Engine([await asyncio.to_thread(load_model, spec)], weights=weights, report=report)
    await engine.open()
    return engine
