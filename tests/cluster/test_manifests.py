"""Tests that the committed files for clusters match the settings, and that Ray accepts them."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.spec import Limits, ModelSpec, TensorSpec
from serving.cluster import limits
from serving.cluster.environment import ray_environment
from serving.config import Settings, load_settings
from serving.operate.render import advice
from serving.operate.render import kuberay as manifests
from serving.operate.render import ray_up as launcher_file

# Warnings from Ray's use of pydantic at import.
pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`:DeprecationWarning")

ROOT = Path(__file__).parents[2]
TENSOR = {"name": "x", "datatype": "FP32", "shape": [-1, 4]}


@pytest.fixture(scope="module")
def demo() -> Settings:
    return load_settings(ROOT / "demo.yaml")


@pytest.fixture
def cluster_file() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())


def settings_of(**model: Any) -> Settings:
    described = {"name": "big", "factory": "a:B", "inputs": [TENSOR], "outputs": [TENSOR]} | model
    return Settings.model_validate({"server": {"http_port": 8123}, "models": [described]})


def validate_cluster_file(content: dict[str, Any]) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(content))
    validate_config(prepared)
    return prepared


def test_the_committed_manifest_is_what_the_demo_renders(demo: Settings) -> None:
    committed = (ROOT / "deploy" / "rayservice.yaml").read_text()
    assert committed == manifests.kuberay(demo), "run: headway render demo.yaml --to kuberay > deploy/rayservice.yaml"


def test_the_committed_policy_is_what_the_demo_renders(demo: Settings) -> None:
    committed = (ROOT / "deploy" / "networkpolicy.yaml").read_text()
    assert committed == manifests.network_policy(demo)


def test_no_container_runs_as_root_gains_a_privilege_or_writes_to_its_image(demo: Settings) -> None:
    cluster = yaml.safe_load(manifests.kuberay(demo))["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        volumes = {volume["name"]: volume["emptyDir"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert {"/tmp", "/dev/shm"} <= set(mounts), "Ray writes there"
            assert set(mounts.values()) == set(volumes)


def test_only_what_is_served_is_reached_from_outside_the_cluster(demo: Settings) -> None:
    policy = yaml.safe_load(manifests.network_policy(demo))["spec"]
    cluster = yaml.safe_load(manifests.kuberay(demo))["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        labels = group["template"]["metadata"]["labels"]
        assert labels.items() >= policy["podSelector"]["matchLabels"].items()
    everybody, pods, operator = policy["ingress"]
    assert [port["port"] for port in everybody["ports"]] == [demo.server.http_port, demo.server.grpc_port]
    assert "from" not in everybody
    assert pods == {"from": [{"podSelector": policy["podSelector"]}]}
    assert [port["port"] for port in operator["ports"]] == [8265]


def test_the_committed_cluster_file_is_what_the_demo_renders(demo: Settings) -> None:
    committed = (ROOT / "ray_cluster.yaml").read_text()
    assert committed == launcher_file.cluster(demo), "run: headway render demo.yaml --to cluster > ray_cluster.yaml"


def test_the_production_settings_keep_three_to_ten_replicas_and_ray_accepts_them() -> None:
    from ray.serve.schema import ServeDeploySchema

    production = load_settings(ROOT / "deploy" / "production.yaml")
    assert {(one.scaling.min_replicas, one.scaling.max_replicas) for one in production.models if one.scaling} == {
        (3, 10)
    }
    assert {model.name for model in production.models} == {
        model.name for model in load_settings(ROOT / "demo.yaml").models
    }
    manifest = yaml.safe_load(manifests.kuberay(production))
    schema = ServeDeploySchema.model_validate(yaml.safe_load(manifest["spec"]["serveConfigV2"]))
    assert len(schema.applications) == 3
    validate_cluster_file(yaml.safe_load(launcher_file.cluster(production)))


def test_ray_serve_accepts_the_applications(demo: Settings) -> None:
    from ray.serve.schema import ServeDeploySchema

    manifest = yaml.safe_load(manifests.kuberay(demo))
    schema = ServeDeploySchema.model_validate(yaml.safe_load(manifest["spec"]["serveConfigV2"]))
    assert {application.name: application.route_prefix for application in schema.applications} == {
        "front": "/",
        "image-classifier": "/v2/models/image-classifier",
        "text-embedder": "/v2/models/text-embedder",
    }


def test_the_settings_in_a_manifest_are_those_of_the_file(demo: Settings) -> None:
    config = yaml.safe_load(manifests.serve_config(demo))
    front, *models = config["applications"]
    for application, spec in zip(models, demo.model_specs(), strict=True):
        carried = Settings.model_validate(application["args"]["settings"])
        assert (application["args"]["model"], carried.model_specs()) == (spec.name, (spec,))
    names = [spec.name for spec in Settings.model_validate(front["args"]["settings"]).model_specs()]
    assert names == [spec.name for spec in demo.model_specs()]


def test_the_front_of_a_manifest_knows_models_without_a_batch_dimension_too() -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [3]}
    settings = settings_of(batched=False, inputs=[tensor], outputs=[tensor])
    front, _ = yaml.safe_load(manifests.serve_config(settings))["applications"]
    (spec,) = Settings.model_validate(front["args"]["settings"]).model_specs()
    assert (spec.batched, spec.inputs[0].shape) == (False, (3,))


def test_each_version_of_a_model_is_an_application_of_its_own() -> None:
    model = {"name": "big", "factory": "a:B", "inputs": [TENSOR], "outputs": [TENSOR]}
    settings = Settings.model_validate({"models": [model | {"version": "1"}, model | {"version": "2", "replicas": 3}]})
    front, *found = yaml.safe_load(manifests.serve_config(settings))["applications"]
    assert [(one["name"], one["route_prefix"]) for one in found] == [
        ("big", "/v2/models/big"), ("big@2", "/v2/models/big/versions/2")
    ]  # fmt: skip
    known = Settings.model_validate(front["args"]["settings"]).applications()
    assert [(name, one.version) for name, one in known.items()] == [("big", "1"), ("big@2", "2")]
    for one, version, application in zip(found, ("1", "2"), (None, "big@2"), strict=True):
        own = Settings.model_validate(one["args"]["settings"]).models
        assert [(each.name, each.version) for each in own] == [("big", version)]
        assert (one["args"]["model"], one["args"].get("application")) == ("big", application)


def test_head_and_workers_start_with_the_same_environment(demo: Settings) -> None:
    cluster = yaml.safe_load(manifests.kuberay(demo))["spec"]["rayClusterConfig"]
    expected = ray_environment(demo, haproxy=True)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        assert {variable["name"]: variable["value"] for variable in container["env"]} == expected
    assert cluster["authOptions"] == {"mode": "token"}


def test_a_gpu_model_gets_workers_with_gpus_and_a_grace_longer_than_its_drain() -> None:
    settings = settings_of(resources={"cpus": 3, "gpus": 1}, replicas=2, limits={"forward_timeout_s": 200})
    spec = yaml.safe_load(manifests.kuberay(settings))["spec"]
    (group,) = spec["rayClusterConfig"]["workerGroupSpecs"]
    pod = group["template"]["spec"]
    (container,) = pod["containers"]
    assert (group["groupName"], group["replicas"], group["maxReplicas"]) == ("gpu", 2, 4)
    assert container["resources"]["limits"] == {"cpu": "3", "memory": "12Gi", "nvidia.com/gpu": "1"}
    assert container["ports"][0] == {"containerPort": 8123, "name": "serve"}
    assert pod["terminationGracePeriodSeconds"] > 200 + 35


def test_ray_accepts_the_cluster_file(cluster_file: dict[str, Any]) -> None:
    prepared = validate_cluster_file(cluster_file)
    types = prepared["available_node_types"]
    assert types[prepared["head_node_type"]]["resources"]["CPU"] == 0, "no replica on the head"
    assert types["gpu_spot"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert prepared["max_workers"] == sum(found["max_workers"] for found in types.values())


@pytest.mark.parametrize(
    "break_it",
    [
        lambda content: content.update(head_node_type="nobody"),
        lambda content: content.update(max_workers="twelve"),
        lambda content: content.update(autoscale=True),
        lambda content: content["available_node_types"]["gpu_spot"]["resources"].update(GPU="one"),
        lambda content: content["available_node_types"]["gpu_spot"].update(min_workers=13),
    ],
    ids=["unknown head", "wrong type", "unknown key", "wrong resource", "more wanted than allowed"],
)
def test_the_check_of_the_cluster_file_would_notice_a_mistake(cluster_file: dict[str, Any], break_it: Any) -> None:
    import jsonschema

    break_it(cluster_file)
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        validate_cluster_file(cluster_file)


def test_every_machine_of_the_cluster_starts_ray_with_the_environment(
    cluster_file: dict[str, Any], demo: Settings
) -> None:
    expected = ray_environment(demo, haproxy=True) | {"RAY_AUTH_MODE": "token"}
    for kind in ("head", "worker"):
        (start,) = [line for line in cluster_file[f"{kind}_start_ray_commands"] if "ray start" in line]
        before, _, _ = start.partition("ray start")
        for name, value in expected.items():
            assert f"{name}={value} " in before or f"{name}='{value}' " in before, (kind, name)
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in cluster_file["head_start_ray_commands"][-1]


def test_ray_reads_every_variable_we_set(demo: Settings) -> None:
    import ray
    import ray.serve._private.constants as constants
    from ray._common.usage import usage_constants

    known = Path(constants.__file__).read_text() + Path(usage_constants.__file__).read_text()
    raylet = (Path(ray.__file__).parent / "core/src/ray/raylet/raylet").read_bytes()
    for variable in ray_environment(demo, haproxy=True).keys() - {"MALLOC_ARENA_MAX"}:  # glibc's
        own_setting = variable.removeprefix("RAY_").encode()  # those of the raylet itself are lower case, and in C++
        assert f'"{variable}"' in known or own_setting in raylet, (
            f"{variable}: this Ray does not know it; look for its new name"
        )


def test_without_haproxy_only_the_python_proxy_is_asked_for(demo: Settings) -> None:
    assert ray_environment(demo, haproxy=False)["RAY_SERVE_ENABLE_HA_PROXY"] == "0"
    off = Settings.model_validate(demo.as_mapping() | {"server": {"haproxy": "off"}})
    assert not [name for name in ray_environment(off, haproxy=True) if "HAPROXY" in name]


def test_grpc_is_offered_where_haproxy_can_route_it(demo: Settings) -> None:
    config = yaml.safe_load(manifests.serve_config(demo))
    assert config["grpc_options"]["port"] == 8001
    assert "{containerPort: 8001, name: grpc}" in manifests.kuberay(demo)
    assert "RAY_SERVE_HAPROXY_BINARY_PATH" in ray_environment(demo, haproxy=True)
    for server in ({"grpc_port": None}, {"haproxy": "off"}):
        without = Settings.model_validate(demo.as_mapping() | {"server": server})
        assert "grpc_options" not in manifests.kuberay(without)
        assert "name: grpc}" not in manifests.kuberay(without)


def test_authentication_is_never_turned_off(demo: Settings) -> None:
    assert "RAY_AUTH_MODE" not in ray_environment(demo)
    assert "disabled" not in manifests.kuberay(demo) + launcher_file.cluster(demo)


def test_the_deployment_keeps_the_limits_that_are_explained() -> None:
    from serving.cluster.deployments import options_of

    tensor = TensorSpec(name="x", datatype="FP32", shape=(-1, 4))
    bounds = Limits(max_batch_rows=8, max_queue_requests=10, forward_timeout_s=7)
    spec = ModelSpec(name="m", factory="a:B", inputs=(tensor,), outputs=(tensor,), limits=bounds)
    options = options_of(spec)
    assert options["max_ongoing_requests"] == limits.max_ongoing_requests(spec) == 26
    assert options["graceful_shutdown_timeout_s"] == limits.graceful_shutdown_s(spec) == 42


def test_a_replica_may_hold_as_much_memory_as_its_limit_and_any_amount_without_one() -> None:
    limits.check_memory(100 << 20, 100)
    limits.check_memory(1 << 40, None)
    with pytest.raises(MemoryError, match=r"holds 101 MiB, more than limits\.max_memory_mb, 100"):
        limits.check_memory(101 << 20, 100)


X = {"name": "x", "datatype": "FP32", "shape": [-1, 1]}


def test_what_one_machine_has_and_a_cluster_lacks_is_said() -> None:
    model = {"name": "m", "factory": "models.reference:noop", "inputs": [X], "outputs": [X]}
    alone = {"models": [model], "tenants": {"acme": {}}, "server": {"auth": {"keys": True}}}
    said = advice(Settings.model_validate(alone))
    assert [line.partition(": ")[0] for line in said] == ["server.state", "server.redis"]
    shared = {"auth": {"keys": True}, "state": "s3://bucket/headway", "redis": {"url": "redis://cache:6379"}}
    assert advice(Settings.model_validate(alone | {"server": shared})) == []
    assert advice(Settings.model_validate({"models": [model], "server": {"auth": "none", "host": "0.0.0.0"}})) == []
    (said_of_versions,) = advice(Settings.model_validate({"models": [model, model | {"version": "2"}]}))
    assert said_of_versions.startswith("server.state: routes between versions")
    stats = {"entity": "user", "features": {"age": {"type": "INT64"}}}
    features = {"entities": {"user": {"key": "user_id"}}, "views": {"stats": stats}}
    (said_of_features,) = advice(Settings.model_validate({"models": [model], "features": features}))
    assert said_of_features.endswith("the feature store keeps nothing, and every feature is unavailable")
