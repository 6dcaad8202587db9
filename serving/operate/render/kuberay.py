"""The Kubernetes manifest for KubeRay, rendered from the settings so that the two cannot disagree.

The manifest contains the settings themselves, so a replica in the cluster needs only the image.
"""

from collections.abc import Mapping
from math import ceil
from textwrap import indent
from typing import Any

import yaml

from serving.cluster.environment import grpc_options, ray_environment
from serving.cluster.limits import KEEP_ALIVE_S, graceful_shutdown_s
from serving.config import ResourceSettings, Settings
from serving.names import FRONT, prefix_of

RAY_VERSION = "2.60.0"
IMAGE = "registry.example.com/headway:0.1.0"
FRONT_NEEDS = (
    "name",
    "version",
    "factory",
    "batched",
    "inputs",
    "outputs",
)  # the fields of a model that the front needs for its index and for valid settings

HEADER = """\
# Rendered by `headway render {file} --to kuberay`: change the settings and render again, see deploy/README.md.
# Needs KubeRay 1.5.1 or newer. Replace the image by the one that you have built from deploy/Dockerfile.
apiVersion: ray.io/v1
kind: RayService
metadata:
  name: {name}
spec:
  # One application per model: each is updated, scaled and fails alone. The front answers all other requests.
  serveConfigV2: |
{serve_config}
  rayClusterConfig:
    rayVersion: '{ray_version}'
    # KubeRay gives a secret token to every pod. Without it, any client that reaches the cluster can run code on it.
    authOptions:
      mode: token
    # Adds a worker when a replica does not fit, and removes idle workers.
    enableInTreeAutoscaling: true
    headGroupSpec:
      # num-cpus 0 keeps models off the head: the cluster depends on it, so it must not run out of memory.
      rayStartParams: {{num-cpus: '0', dashboard-host: 0.0.0.0}}
      template:
        metadata:
          labels: &labels {{headway: {name}}}
        spec:
          # The containers need no root and no privileges, and write only to the folders below.
          securityContext: &user
            runAsNonRoot: true
            runAsUser: 1000
            runAsGroup: 100
            fsGroup: 100
            seccompProfile: {{type: RuntimeDefault}}
          containers:
            - name: ray-head
              image: {image}
              securityContext: &confined
                allowPrivilegeEscalation: false
                readOnlyRootFilesystem: true
                capabilities: {{drop: [ALL]}}
              ports:
                - {{containerPort: 6379, name: gcs-server}}
                - {{containerPort: 8265, name: dashboard}}
                - {{containerPort: 10001, name: client}}
                - {{containerPort: {port}, name: serve}}{grpc}
              resources:
                requests: {{cpu: '2', memory: 4Gi}}
                limits: {{cpu: '2', memory: 4Gi}}
              # Ray Serve reads these when it is imported, so both head and workers must start with them.
              env: &environment
{environment}
              volumeMounts: &mounts
                - {{name: scratch, mountPath: /tmp}}
                - {{name: cache, mountPath: /home/ray/.cache}}
                - {{name: shared-memory, mountPath: /dev/shm}}
          volumes: &volumes
            # Ray's logs and sockets.
            - name: scratch
              emptyDir: {{}}
            # Files that torch and other libraries compile or download.
            - name: cache
              emptyDir: {{}}
            # Ray's object store; the default of 64 MiB for a pod is too little.
            - name: shared-memory
              emptyDir: {{medium: Memory, sizeLimit: 1Gi}}
    workerGroupSpecs:
{groups}"""

POLICY = """\
# Rendered by `headway render {file} --to network-policy`.
# Clients reach only the ports that serve requests. Ray's ports and the replicas' are open to the cluster's own pods,
# Ray's dashboard also to KubeRay's operator. Takes effect only if the cluster's network plugin enforces policies.
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {name}
spec:
  podSelector:
    matchLabels: {{headway: {name}}}
  policyTypes: [Ingress]
  ingress:
    - ports:
        - {{port: {port}, protocol: TCP}}{grpc_policy}
    - from:
        - podSelector:
            matchLabels: {{headway: {name}}}
    - from:
        - namespaceSelector: {{}}
          podSelector:
            matchLabels: {{app.kubernetes.io/name: kuberay-operator}}
      ports:
        - {{port: 8265, protocol: TCP}}
"""

GROUP = """\
      - groupName: {group}
        replicas: {count}
        minReplicas: 1
        # Twice what the settings ask for: room for a rolling update, and a bound on the cost of autoscaling.
        maxReplicas: {most}
        rayStartParams: {{}}
        template:
          metadata:
            labels: *labels
          spec:
            securityContext: *user
            # Longer than the longest drain, so that no request in flight is lost.
            terminationGracePeriodSeconds: {grace}
            containers:
              - name: ray-worker
                image: {image}
                securityContext: *confined
                ports:
                  - {{containerPort: {port}, name: serve}}{grpc}
                  - {{containerPort: 8080, name: metrics}}
                resources:
                  requests: {resources}
                  limits: {resources}
                env: *environment
                volumeMounts: *mounts
            volumes: *volumes
"""


def kuberay(settings: Settings, *, image: str = IMAGE) -> str:
    """Renders a RayService manifest."""
    source = settings.source
    return HEADER.format(
        file=source.path.name if source else "CONFIG",
        name=settings.server.name,
        serve_config=indent(serve_config(settings), " " * 4).rstrip(),
        ray_version=RAY_VERSION,
        image=image,
        port=settings.server.http_port,
        grpc=_grpc_port(settings, indentation=16),
        environment=indent(environment_list(ray_environment(settings, haproxy=True)), " " * 16).rstrip(),
        groups="".join(_groups(settings, image)),
    )


def network_policy(settings: Settings) -> str:
    """Renders a NetworkPolicy for the pods of that RayService."""
    source = settings.source
    grpc = f"\n        - {{port: {settings.server.grpc_port}, protocol: TCP}}" if _has_grpc(settings) else ""
    return POLICY.format(
        file=source.path.name if source else "CONFIG",
        name=settings.server.name,
        port=settings.server.http_port,
        grpc_policy=grpc,
    )


def serve_config(settings: Settings) -> str:
    """Renders the input of `serve deploy` and `serveConfigV2`: the front and one application per model."""
    front = {
        "name": FRONT,
        "route_prefix": "/",
        "import_path": "serving.cluster.app:front_application",
        "args": {"settings": _settings_of_front(settings)},
    }
    models = [
        {
            "name": name,
            "route_prefix": prefix_of(name, model.name, model.version),
            "import_path": "serving.cluster.app:model_application",
            "args": {"model": model.name, **({} if name == model.name else {"application": name})}
            | {"settings": settings.as_mapping(name)},
        }
        for name, model in settings.applications().items()
    ]
    return to_yaml(
        {
            "proxy_location": "EveryNode",
            # Inside a pod the address is the pod's own; the Service and the network policy decide who may reach it.
            "http_options": {
                "host": "0.0.0.0",
                "port": settings.server.http_port,
                "keep_alive_timeout_s": KEEP_ALIVE_S,
            },
            **({"grpc_options": grpc_options(settings)} if _has_grpc(settings) else {}),
            "applications": [front, *models],
        }
    )


def environment_list(environment: Mapping[str, str]) -> str:
    """Renders variables for a container's `env`. Values are quoted, because Kubernetes accepts strings only."""
    return "".join(f"- {{name: {name}, value: '{value}'}}\n" for name, value in environment.items())


def to_yaml(value: object) -> str:
    """Renders plain data as YAML in its own order, with lists of plain values on one line."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6)


def _settings_of_front(settings: Settings) -> dict[str, Any]:
    mapping = settings.as_mapping()
    # KubeRay would deploy again a model that a client has unloaded.
    mapping.get("server", {}).pop("model_control", None)
    mapping["models"] = [{key: model[key] for key in FRONT_NEEDS if key in model} for model in mapping["models"]]
    return mapping


def _has_grpc(settings: Settings) -> bool:
    return bool(settings.server.grpc_port) and settings.server.haproxy == "auto"


def _grpc_port(settings: Settings, *, indentation: int) -> str:
    """Returns the line of gRPC in a list of ports; "" without gRPC."""
    line = f"\n{' ' * indentation}- {{containerPort: {settings.server.grpc_port}, name: grpc}}"
    return line if _has_grpc(settings) else ""


def _groups(settings: Settings, image: str) -> list[str]:
    """Renders a group of workers for models with a GPU and one for models without, if there are such models."""
    groups = []
    for group, on_gpu in (("cpu", False), ("gpu", True)):
        models = [model for model in settings.models if (model.resources.gpus > 0) is on_gpu]
        if not models:
            continue
        specs = [model.spec() for model in models]
        cpus = max(2, ceil(max(spec.resources.cpus for spec in specs)))
        gpus = ceil(max(spec.resources.gpus for spec in specs))
        count = _workers([(model.resources, model.fewest_replicas()) for model in models], cpus, gpus)
        at_most = _workers([(model.resources, model.most_replicas()) for model in models], cpus, gpus)
        resources = f"{{cpu: '{cpus}', memory: {4 * cpus}Gi"
        resources += f", nvidia.com/gpu: '{gpus}'}}" if gpus else "}"
        groups.append(
            GROUP.format(
                group=group,
                count=count,
                most=2 * at_most,
                grace=ceil(max(map(graceful_shutdown_s, specs))) + 30,
                image=image,
                port=settings.server.http_port,
                grpc=_grpc_port(settings, indentation=18),
                resources=resources,
            )
        )
    return groups


def _workers(wanted: list[tuple[ResourceSettings, int]], cpus: int, gpus: int) -> int:
    """Returns how many workers of this size hold so many replicas of each model; at least one."""
    by_cpu = ceil(sum(resources.cpus * count for resources, count in wanted) / cpus)
    by_gpu = ceil(sum(resources.gpus * count for resources, count in wanted) / gpus) if gpus else 1
    return max(1, by_cpu, by_gpu)


class _Dumper(yaml.SafeDumper):
    pass


def _list(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.Node:
    plain = not any(isinstance(item, dict | list) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=plain)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(list, _list)
_Dumper.add_representer(str, _text)
