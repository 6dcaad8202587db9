"""The metadata, configuration and statistics of server and models, as the JSON that clients parse.

perf_analyzer crashes if one of several fields is missing; the tests name these fields.
"""

import json
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from serving.api.served import ServedModel
from serving.core.sizes import LARGEST_ROWS
from serving.core.statistics import Duration, ModelStatistics
from serving.protocol.messages import TensorDescription

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "parameters",
    "schedule_policy",
    "sequence",
    "statistics",
)


def server_metadata(name: str = "headway", more_extensions: Iterable[str] = ()) -> dict[str, Any]:
    try:
        release = version("headway")
    except PackageNotFoundError:  # run from a checkout, without installation
        release = "0"
    return {"name": name, "version": release, "extensions": sorted({*EXTENSIONS, *more_extensions})}


def model_metadata(model: ServedModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "versions": [model.version],
        "platform": model.platform,
        "inputs": [_described(tensor) for tensor in model.inputs],
        "outputs": [_described(tensor) for tensor in model.outputs],
    }


def _described(tensor: TensorDescription) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def model_config(model: ServedModel) -> dict[str, Any]:
    """Returns those fields of Triton's model configuration that have a meaning here.

    Two of them come from the model's settings `max_batch_rows` and `replicas`; all settings are under `parameters`."""
    settings = model.config()
    rows = (settings.get("max_batch_rows") or LARGEST_ROWS) if model.batched else 0
    # Without batching Triton's configuration names no scheduler.
    scheduler = "sequence_batching" if model.stateful else "dynamic_batching" if model.batched else ""
    if model.description:
        settings = {"description": model.description, **settings}
    return {
        "name": model.name,
        "platform": model.platform,
        "backend": "headway",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": rows,
        "input": [
            {**_configured(tensor), "format": "FORMAT_NONE", "optional": tensor.optional} for tensor in model.inputs
        ],
        "output": [_configured(tensor) for tensor in model.outputs],
        "instance_group": [{"name": model.name, "kind": "KIND_AUTO", "count": settings.get("replicas") or 1}],
        **({scheduler: {}} if scheduler else {}),
        "model_transaction_policy": {"decoupled": model.generator is not None},
        "parameters": {
            name: {"string_value": value if isinstance(value, str) else json.dumps(value, default=str)}
            for name, value in settings.items()
        },
    }


def _configured(tensor: TensorDescription) -> dict[str, Any]:
    datatype = "TYPE_STRING" if tensor.datatype == "BYTES" else f"TYPE_{tensor.datatype}"
    return {"name": tensor.name, "data_type": datatype, "dims": list(tensor.row_shape)}


def statistics(models: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {"model_stats": list(models)}


async def served_statistics(model: ServedModel) -> dict[str, Any]:
    """Returns a model's entry of `model_stats`, summed over all its replicas."""
    return model_statistics(model.name, model.version, await model.statistics())


def model_statistics(name: str, version: str, counts: ModelStatistics) -> dict[str, Any]:
    return {
        "name": name,
        "version": version,
        "last_inference": counts.last_inference_ms,
        "inference_count": counts.inference_count,
        "execution_count": counts.execution_count,
        "inference_stats": {
            "success": _duration(counts.success),
            "fail": _duration(counts.fail),
            "queue": _duration(counts.queue),
            "compute_input": _duration(counts.compute_input),
            "compute_infer": _duration(counts.compute_infer),
            "compute_output": _duration(counts.compute_output),
            "cache_hit": _duration(counts.cache_hit),
            "cache_miss": _duration(counts.cache_miss),
        },
        "batch_stats": [
            {
                "batch_size": rows,
                "compute_input": _duration(batch.compute_input),
                "compute_infer": _duration(batch.compute_infer),
                "compute_output": _duration(batch.compute_output),
            }
            for rows, batch in sorted(counts.by_batch_rows.items())
        ],
        "memory_usage": [],
    }


def _duration(duration: Duration) -> dict[str, int]:
    return {"count": duration.count, "ns": duration.ns}
