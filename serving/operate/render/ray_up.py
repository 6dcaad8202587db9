"""The file for Ray's cluster launcher (`ray up`), rendered with the environment that Headway needs.

Choices per cluster (region, machine types, bounds) are plain text in the template, each with its reason.
"""

import shlex

from serving.cluster.environment import ray_environment
from serving.config import Settings

TEMPLATE = """\
# A Ray cluster on AWS for Headway. Rendered by `headway render {file} --to cluster`.
#
#   ray get-auth-token --generate         # once: creates a secret in ~/.ray/auth_token, which is copied to every node
#   ray up ray_cluster.yaml               # starts or updates the cluster
#   ray rsync-up ray_cluster.yaml my.yaml settings.yaml
#   ray exec ray_cluster.yaml 'headway serve settings.yaml' --tmux    # with server.ray_address: auto
#   ray down ray_cluster.yaml             # stop all machines, and their cost
cluster_name: {name}

# All workers together. The sum of the bounds below: it bounds the cost.
max_workers: 12
# How many machines may start at the same time, as a share of those that run: one if one runs, four if four run.
upscaling_speed: 1.0
# A GPU machine takes minutes to start and to fetch its image. Ten idle minutes cost less than the queue that builds up
# at the next burst until a new machine has started.
idle_timeout_minutes: 10

provider:
  type: aws
  region: eu-central-1
  # Several zones: spot GPUs are often sold out in one of them.
  availability_zone: eu-central-1a,eu-central-1b
  # A stopped machine that is kept for reuse costs its disk and starts with an old image.
  cache_stopped_nodes: false

auth:
  ssh_user: ubuntu

docker:
  # Built from deploy/Dockerfile with BASE set to Ray's CUDA image. The head runs the same image, without a GPU.
  image: {image}
  container_name: headway
  pull_before_run: true
  run_options:
    - --ulimit nofile=65536:65536   # HAProxy and the replicas hold a connection per client
    - --shm-size=8g                 # Ray's object store

# Ray 2.60 turns token authentication on for a local Ray only; RAY_AUTH_MODE below turns it on for the cluster. The
# token is copied from your machine.
file_mounts:
  /home/ray/.ray/auth_token: ~/.ray/auth_token

head_node_type: head
available_node_types:
  # On demand, never spot: the cluster ends with it. CPU 0 keeps models off it, so that none can starve it of memory.
  head:
    resources: {{CPU: 0, GPU: 0}}
    min_workers: 0
    max_workers: 0
    node_config:
      InstanceType: m7i.xlarge
      BlockDeviceMappings:
        - DeviceName: /dev/sda1
          Ebs: {{VolumeSize: 100, VolumeType: gp3}}

  # For the base load. One machine always runs, so that a model with one replica needs no cold start. Four machines are
  # 32 vCPUs of G instances: check that the quota of your account allows them; AWS raises it on request.
  gpu_on_demand:
    resources: {{CPU: 8, GPU: 1}}
    min_workers: 1
    max_workers: 4
    labels: {{headway/market: on-demand}}
    node_config:
      InstanceType: g6.2xlarge      # one L4 with 24 GB
      BlockDeviceMappings:
        - DeviceName: /dev/sda1
          Ebs: {{VolumeSize: 150, VolumeType: gp3}}

  # For load above the base, at a lower price. AWS takes a machine back with two minutes' notice;
  # `headway drain-on-notice` then drains it: replacements start first, then its replicas finish their requests. None
  # without load, eight at most: twice the on-demand part, so that a third of the capacity is left if all are lost at
  # once.
  gpu_spot:
    resources: {{CPU: 8, GPU: 1}}
    min_workers: 0
    max_workers: 8
    labels: {{headway/market: spot}}
    node_config:
      InstanceType: g6.2xlarge
      InstanceMarketOptions:
        MarketType: spot
      BlockDeviceMappings:
        - DeviceName: /dev/sda1
          Ebs: {{VolumeSize: 150, VolumeType: gp3}}

# The environment is set at `ray start` on head and workers: every Ray process inherits it, and Ray Serve reads it when
# it is imported. The reason for each variable: serving/cluster/environment.py.
head_start_ray_commands:
  - ray stop
  - >-
    {environment}
    ray start --head --port=6379 --object-manager-port=8076 --metrics-export-port=8080
    --autoscaling-config=~/ray_bootstrap_config.yaml

worker_start_ray_commands:
  - ray stop
  - >-
    {environment}
    ray start --address=$RAY_HEAD_IP:6379 --object-manager-port=8076 --metrics-export-port=8080
  # Drains the node when AWS says that it takes it back. On-demand machines get no such notice.
  - RAY_AUTH_MODE=token nohup headway drain-on-notice > /tmp/drain-on-notice.log 2>&1 &
"""

IMAGE = "registry.example.com/headway:0.1.0-gpu"


def cluster(settings: Settings, *, image: str = IMAGE) -> str:
    """Renders a cluster-launcher file. It contains no models: they are deployed to the running cluster."""
    source = settings.source
    environment = ray_environment(settings, haproxy=True) | {"RAY_AUTH_MODE": "token"}
    return TEMPLATE.format(
        file=source.path.name if source else "CONFIG",
        name=settings.server.name,
        image=image,
        environment="\n    ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items()),
    )
