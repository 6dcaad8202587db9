"""The compared servers: their commands, environments, URLs and form of requests."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.peers.environment import Environment, clean

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SERVERS = HERE / "servers"
WORKS = ("noop", "mlp")

HEADWAY_PORT = 8390
TRITON_PORT, MOSEC_PORT, RAY_PORT = 8391, 8392, 8393
HEADWAY = "headway"
ONE_BY_ONE = "headway-one-by-one"
HAPROXY = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "2",  # the number of cores of the smallest machine in this comparison
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    name: str
    title: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    urls: Mapping[str, str]  # by work
    script: str  # the name of its script in load/*.lua
    uses_ray: bool = False
    start_limit_s: float = 60.0

    @property
    def port(self) -> int | None:
        """The port of all its URLs."""
        return urlsplit(next(iter(self.urls.values()))).port


def peers(environment: Environment, scratch: Path) -> tuple[Peer, ...]:
    """Returns all servers, Headway first. `scratch` must be a short path, because Ray puts sockets under it."""
    python = str(environment.python)
    imports = {"PYTHONPATH": f"{environment.site_packages}:{SERVERS}"}
    return (
        _headway(HEADWAY, "Headway", "headway_noop.yaml", WORKS),
        _headway(ONE_BY_ONE, "Headway, batches of one", "headway_batches_of_one.yaml", ("mlp",)),
        Peer(
            name="triton",
            title="Triton 24.10, python backend, HTTP",
            command=(
                str(environment.triton_server),
                f"--model-repository={SERVERS / 'triton'}",
                f"--backend-directory={environment.triton_backends}",
                "--http-address=127.0.0.1",
                f"--http-port={TRITON_PORT}",
                "--http-thread-count=2",
                "--allow-grpc=false",
                "--allow-metrics=false",
            ),
            environment={**clean(), **imports, "LD_LIBRARY_PATH": environment.triton_libraries},
            urls={work: f"http://127.0.0.1:{TRITON_PORT}/v2/models/{work}/infer" for work in WORKS},
            script="oip",
        ),
        Peer(
            name="mosec",
            title="Mosec",
            command=(python, str(SERVERS / "mosec_server.py"), "--address", "127.0.0.1", "--port", str(MOSEC_PORT)),
            environment=clean(),
            urls={work: f"http://127.0.0.1:{MOSEC_PORT}/{work}" for work in WORKS},
            script="raw",
        ),
        _ray("ray", "Ray Serve, default path, @serve.batch", python, scratch / "r", {}),
        _ray("ray-haproxy", "Ray Serve, HAProxy, @serve.batch", python, scratch / "h", HAPROXY),
        _ray(
            "ray-throughput",
            "Ray Serve, HAProxy and throughput settings, @serve.batch",
            python,
            scratch / "t",
            {**HAPROXY, "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"},
        ),
    )


def _headway(name: str, title: str, configuration: str, works: tuple[str, ...]) -> Peer:
    return Peer(
        name=name,
        title=title,
        command=(sys.executable, "-m", "serving", "serve", str(HERE / configuration)),
        environment=clean(),
        urls={work: f"http://127.0.0.1:{HEADWAY_PORT}/v2/models/{work}/infer" for work in works},
        script="oip",
        uses_ray=True,
        start_limit_s=150.0,
    )


def ray_apart(folder: Path) -> dict[str, str]:
    """Returns settings that separate the files and ports of Ray Serve's HAProxy from another one on this machine."""
    return {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}-haproxy/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}-haproxy/admin.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": f"{folder}-haproxy",
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}-haproxy/server-state",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}-haproxy/metrics.sock",
        "RAY_SERVE_HAPROXY_METRICS_PORT": "9191",
        "RAY_SERVE_HAPROXY_STATS_PORT": "9194",
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": "31100",
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": "31900",
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": "41100",
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": "41900",
    }


def _ray(name: str, title: str, python: str, folder: Path, settings: Mapping[str, str]) -> Peer:
    return Peer(
        name=name,
        title=title,
        command=(python, str(SERVERS / "ray_server.py"), "--port", str(RAY_PORT), "--folder", str(folder)),
        environment={**clean(), "PYTHONPATH": str(SERVERS), **(ray_apart(folder) if settings else {}), **settings},
        urls={work: f"http://127.0.0.1:{RAY_PORT}/{work}" for work in WORKS},
        script="raw",
        uses_ray=True,
        start_limit_s=120.0,
    )
