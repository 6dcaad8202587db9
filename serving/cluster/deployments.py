"""Values that the deployments of models and of the front share: Ray's options, the gRPC relay, the server's folder."""

import os
from pathlib import Path
from typing import Any

from ray.serve._private.logging_utils import get_serve_logs_dir
from ray.serve.config import AutoscalingConfig

from models.spec import ModelSpec
from serving.api.shared_memory.cuda_driver import cuda_driver
from serving.api.shared_memory.regions import Regions
from serving.cluster.front.grpc_relay import GrpcRelay
from serving.cluster.limits import graceful_shutdown_s, max_ongoing_requests
from serving.config import ServerSettings
from serving.telemetry.gpu import visible_devices

# A lost lane is noticed within seconds; with Ray's defaults it would take three checks, ten seconds apart.
HEALTH_CHECK_PERIOD_S = 2.0
# JSON for programs; `headway logs` prints it for people. Ray's access log is off: it sees no request of the fast door.
LOGGING = {"enable_access_log": False, "encoding": "JSON"}


def grpc_relay(server: ServerSettings) -> GrpcRelay | None:
    """The relay of gRPC calls to replicas of other models; None if the server has no gRPC port."""
    return GrpcRelay(f"{server.own_host}:{server.grpc_port}", server.tenant_header) if server.grpc_port else None


def own_folder() -> Path:
    """The folder for Headway's files. Each Ray session has one, so that a server does not find the files of an earlier
    one."""
    return Path(get_serve_logs_dir()).parents[1] / "headway"


def shared_regions(*, by_tenant: bool) -> Regions:
    """The shared memory that clients have registered with this server. by_tenant: whether it belongs to tenants."""
    return Regions(own_folder(), cuda_driver(visible_devices(os.environ)), by_tenant=by_tenant)


def options_of(spec: ModelSpec, scaling: AutoscalingConfig | None = None, *, surge: int = 0) -> dict[str, Any]:
    """Ray's options for a model's deployment, derived from the model's spec. surge: see `limits.surge_percent`."""
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
