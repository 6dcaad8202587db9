"""Facts of Ray deployments that replicas and the front share: options, the relay between them, their folder."""

from pathlib import Path
from typing import Any

from ray.serve._private.logging_utils import get_serve_logs_dir
from ray.serve.config import AutoscalingConfig

from models.spec import ModelSpec
from serving.cluster.front.grpc_relay import GrpcRelay
from serving.cluster.limits import graceful_shutdown_s, max_ongoing_requests
from serving.config import ServerSettings

# A lane that is lost is noticed within seconds, not after Ray's default of three times ten.
HEALTH_CHECK_PERIOD_S = 2.0
# For programs; `headway logs` shows it to people. Ray's own log of requests would see none of ours.
LOGGING = {"enable_access_log": False, "encoding": "JSON"}


def grpc_relay(server: ServerSettings) -> GrpcRelay | None:
    """The way to other models' replicas, where there is gRPC."""
    return GrpcRelay(f"{server.own_host}:{server.grpc_port}", server.tenant_header) if server.grpc_port else None


def own_folder() -> Path:
    """One for each Ray on a machine, so that what one server has registered or kept is unknown to the next."""
    return Path(get_serve_logs_dir()).parents[1] / "headway"


def options_of(spec: ModelSpec, scaling: AutoscalingConfig | None = None, *, surge: int = 0) -> dict[str, Any]:
    """Ray's settings for a model's deployment, derived from its declared facts. surge: see `limits.surge_percent`."""
    return {
        **({"autoscaling_config": scaling} if scaling else {"num_replicas": spec.replicas}),
        "max_surge_percent": surge,
        "max_ongoing_requests": max_ongoing_requests(spec),
        "ray_actor_options": {"num_cpus": spec.resources.cpus, "num_gpus": spec.resources.gpus},
        "graceful_shutdown_timeout_s": graceful_shutdown_s(spec),
        "health_check_period_s": HEALTH_CHECK_PERIOD_S,
        "health_check_timeout_s": 10.0,
        "logging_config": LOGGING,
    }
