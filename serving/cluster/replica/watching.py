"""Builds the observers of requests that the settings ask for: log, traces, recording; and computes the price."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.spec import ModelSpec, Resources
from serving.config import ServerSettings
from serving.core.witness import Witness
from serving.telemetry.logs import RequestLog
from serving.telemetry.recording import Recorded, Recording
from serving.telemetry.trace import RequestTraces

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """The settings that a replica needs to observe its requests and to guard its settings.

    price_per_hour: price of a replica's resources, None without one. log_per_s: most logged requests per second,
    0 for none. trace_endpoint: None for no traces. record_folder: None for no recording. settings_control: whether
    clients may change trace and log settings. admin_token_file, allowed_origins: as in the settings."""

    price_per_hour: float | None = None
    log_per_s: int = 0
    trace_endpoint: str | None = None
    trace_share: float = 0.0
    record_folder: str | None = None
    record_mb: int = 0
    settings_control: bool = True
    admin_token_file: str | None = None
    allowed_origins: tuple[str, ...] = ()


def watching(server: ServerSettings, resources: Resources) -> Watching:
    return Watching(
        price_per_hour=price_per_hour(resources, server.gpu_hour_price, server.cpu_hour_price),
        log_per_s=server.request_log_per_s,
        trace_endpoint=server.trace_endpoint,
        trace_share=server.trace_share,
        record_folder=server.record_folder,
        record_mb=server.record_mb,
        settings_control=server.settings_control,
        admin_token_file=server.admin_token_file,
        allowed_origins=tuple(server.allowed_origins),
    )


def witnesses(wanted: Watching, spec: ModelSpec) -> list[Witness]:
    """Returns the witnesses that the settings ask for. Without any, requests are not measured for them either.

    Raises ModuleNotFoundError if the package for traces is missing."""
    found: list[Witness] = []
    if wanted.log_per_s:
        found.append(RequestLog(logger, model=spec.name, version=spec.version, per_s=wanted.log_per_s))
    if wanted.trace_endpoint:
        try:
            found.append(
                RequestTraces(wanted.trace_endpoint, model=spec.name, version=spec.version, share=wanted.trace_share)
            )
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"server.trace_endpoint: {error}; pip install 'headway[trace]'") from error
    return found


def recorded(wanted: Watching, spec: ModelSpec, backend: Any) -> Any:
    """Returns the backend with recording of its requests; as it is if the settings do not ask for that."""
    if wanted.record_folder is None:
        return backend
    recording = Recording(
        Path(wanted.record_folder),
        model=spec.name,
        datatypes={tensor.name: tensor.datatype for tensor in spec.inputs},
        most_bytes=wanted.record_mb << 20,
    )
    return Recorded(backend, recording)


def price_per_hour(resources: Resources, gpu_hour: float | None, cpu_hour: float | None) -> float | None:
    """Returns the price of a replica's resources; None if no price is set for any of them."""
    parts = [
        count * price for count, price in ((resources.gpus, gpu_hour), (resources.cpus, cpu_hour)) if price is not None
    ]
    return sum(parts) if parts else None
