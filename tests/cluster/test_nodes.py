"""Tests that machines are added with the demand of our replicas and removed when idle, with the node types and bounds
of `ray_cluster.yaml`, on Ray's provider of fake machines, which are raylets on this machine."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray import serve

from serving.cluster.app import deploy
from serving.cluster.environment import ray_environment
from serving.config import Settings
from serving.operate.processes import descendants, end
from tests.cluster.conftest import NOOP
from tests.patience import eventually

pytestmark = [pytest.mark.ray, pytest.mark.chaos, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]

PORT = 6471  # below the ports that Ray gives its workers
RAY = str(Path(sys.executable).with_name("ray"))
IDLE_MINUTES = 0.1  # instead of ten
HEAD = "ray.head.default"  # the provider's name for it
HEAD_ID = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"
STORE = {"object_store_memory": 80 * 1024 * 1024}
# HAProxy uses the same ports on every machine, but all of these are one machine.
SETTINGS: dict[str, Any] = {"server": {"haproxy": "off"}}


def fake(cluster: dict[str, Any]) -> dict[str, Any]:
    """Returns the same cluster with fake machines."""
    kinds = {
        HEAD if name == cluster["head_node_type"] else name: kind
        for name, kind in cluster["available_node_types"].items()
    }
    types = {
        name: {**kind, "node_config": {}, "resources": {**kind["resources"], **STORE}} for name, kind in kinds.items()
    }
    provider = {
        "type": "external",  # Ray's package lacks a file for `fake_multinode`
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "gcs_address": f"127.0.0.1:{PORT}",
        "head_node_id": HEAD_ID,
        "launch_multiple": True,
        "disable_node_updaters": True,  # nothing to install
    }
    # The fields that `ray up` fills in.
    nothing = ("setup_commands", "initialization_commands", "cluster_synced_files")
    nothing += tuple(
        f"{kind}_{what}" for kind in ("head", "worker") for what in ("setup_commands", "start_ray_commands")
    )
    kept = {name: cluster[name] for name in ("cluster_name", "max_workers", "upscaling_speed")}
    return {
        **{key: [] for key in nothing},
        "file_mounts": {},
        **kept,
        "idle_timeout_minutes": IDLE_MINUTES,
        "provider": provider,
        "available_node_types": types,
        "head_node_type": HEAD,
    }


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("nodes")
    subprocess.run([RAY, "get-auth-token", "--generate"], check=True, capture_output=True)  # unless there is one
    path = folder / "cluster.json"
    path.write_text(json.dumps(fake(yaml.safe_load(Path("ray_cluster.yaml").read_text()))))
    environment = {
        **os.environ,
        **ray_environment(Settings.model_validate(SETTINGS | {"models": [NOOP]})),
        "RAY_AUTH_MODE": "token",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_enable_autoscaler_v2": "1",  # as with `ray up`
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }
    command = [RAY, "start", "--head", "--block", f"--port={PORT}"]
    command += ["--node-ip-address=127.0.0.1", "--include-dashboard=false", "--num-cpus=0", "--num-gpus=0"]
    command += [f"--object-store-memory={STORE['object_store_memory']}", f"--autoscaling-config={path}"]
    with (folder / "ray.log").open("w") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        eventually(
            lambda: (folder / "ray.log").read_text(),
            lambda said: "Ray runtime started" in said or head.poll() is not None,
        )
        assert head.poll() is None, (folder / "ray.log").read_text()
        ray.init(address="auto", log_to_driver=False)
        serve.start(proxy_location="Disabled")
        yield
    finally:
        ray.shutdown()
        end({head.pid} | descendants(head.pid), patience_s=3)
        head.wait()


def deployed(replicas: int) -> None:
    model = {**NOOP, "replicas": replicas, "resources": {"cpus": 4, "gpus": 1}}
    deploy(Settings.model_validate(SETTINGS | {"models": [model]}), gpus=True)


def running() -> int:
    states: Counter[str] = Counter()
    for deployment in serve.status().applications["noop"].deployments.values():
        states.update(deployment.replica_states)
    return states["RUNNING"]


def alive() -> Counter[str]:
    """Returns the number of running machines by market."""
    return Counter(node["Labels"].get("headway/market", "head") for node in ray.nodes() if node["Alive"])


def test_machines_come_with_replicas_that_find_no_place_and_go_when_they_are_idle(machines: None) -> None:
    usual = {"head": 1, "on-demand": 1}
    eventually(alive, lambda found: found == usual)
    deployed(1)
    eventually(running, lambda count: count == 1)
    assert alive() == usual, "it found a place"
    deployed(3)
    eventually(running, lambda count: count == 3, 120)
    assert alive().total() >= 1 + 3, "a GPU each, and the head has none"
    serve.delete("noop")
    eventually(alive, lambda found: found == usual, 120)
