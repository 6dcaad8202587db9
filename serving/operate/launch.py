"""Runs `headway serve`: starts Ray with the right environment, deploys the models, prints how to call them, and stops.

The environment must be complete before Ray is imported, because every process reads it when it imports Ray Serve.
"""

import json
import logging
import os
import shlex
import time
from collections.abc import Callable
from math import ceil
from pathlib import Path
from secrets import token_hex
from typing import Any

from serving.api.admission.secret import VARIABLE as SECRET
from serving.cluster.environment import (
    can_listen,
    grpc_options,
    listening_environment,
    own_host,
    ray_environment,
    serves_grpc,
    uses_haproxy,
)
from serving.cluster.feature_history import NoHistory, pushes_folder
from serving.cluster.limits import KEEP_ALIVE_S
from serving.cluster.ports import ALONE, machines_ports, replicas_environment
from serving.cluster.probes import NeverUp, answers, answers_over_grpc, expected, hears, own_request
from serving.cluster.resting import resting_environment
from serving.config import Settings
from serving.direct import ask
from serving.names import FRONT, model_path
from serving.operate.doctor import Verdict, check_ports
from serving.operate.extras import missing
from serving.operate.keeping import Unsafe, haproxy_environment, home, home_trouble, kept_folder, token_environment
from serving.operate.own_redis import own_redis
from serving.operate.path import claim_python_path
from serving.operate.processes import Interrupted, StopSignal, descendants, end

READY_TIMEOUT_S = 600.0
ASK_S = 0.5  # between two questions to Ray, each of which takes 40 ms of CPU that the starting models need
DRAIN_S = 3.0

Say = Callable[[str], None]


class StartFailed(Exception):
    """The start failed. The text says what failed and quotes the replica's error."""


def serve(settings: Settings, config_path: Path, say: Say) -> None:
    """Serves until Ctrl-C, SIGTERM or SIGHUP, which also end a start, after its current step.

    Raises `StartFailed` if the start fails."""
    stop = StopSignal()
    with own_redis(settings, say) as served:
        _serve(Cluster(served, config_path, say), stop, say)


def _serve(cluster: "Cluster", stop: StopSignal, say: Say) -> None:
    try:
        with stop.keeping():
            cluster.start(stop.check)
            if cluster.wait_until_ready(stop):
                for line in cluster.announcement():
                    say(line)
        stop.wait()
    except Interrupted:
        pass
    finally:
        try:
            say("stopping …")
        finally:  # also if the output is closed
            cluster.stop()
        say("stopped")


class Cluster:
    """Ray and Headway's applications on it. Starts its own Ray unless the settings name one."""

    def __init__(self, settings: Settings, config_path: Path, say: Say) -> None:
        self._settings = settings
        self.folder = str(config_path.resolve().parent)
        self._config_path = config_path
        self._say = say
        self._owns_ray = settings.server.ray_address is None
        self._bystanders: set[int] | None = None  # descendants of this process that existed before the start

    def start(self, check: Callable[[], None] = lambda: None) -> None:
        """Starts Ray and deploys the models, without waiting for them. Raises StartFailed.

        check: called between the steps, which cannot be interrupted; raises an exception to end the start."""
        check()
        server = self._settings.server
        self._bystanders = descendants(os.getpid())
        if lacking := missing(self._settings):
            raise StartFailed("\n".join(lacking))
        if not can_listen(self._settings):
            raise StartFailed(f"server.host {server.host}: IPv6 needs HAProxy, and a Ray that `headway serve` starts")
        if self._owns_ray:
            self._check_ports()
        # With it, Ray's C++ takes SIGTERM for a crash from the middle of `ray.init` on, and aborts this process.
        # Crashes are reported without it too, by Python's faulthandler.
        os.environ["RAY_DISABLE_FAILURE_SIGNAL_HANDLER"] = "1"
        self._warn_of_no_history()
        os.environ.update(ray_environment(self._settings))
        if self._owns_ray:
            os.environ.update(self._own_environment())
        for folder in claim_python_path(self.folder):
            self._say(f"WARNING: PYTHONPATH: {folder} hides a package of Headway and is ignored")
        self._say("starting Ray …")
        # At every start Ray logs how to turn its token authentication off, which is bad advice.
        logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
        import ray
        from ray.job_config import JobConfig

        from serving.cluster.app import deploy
        from serving.cluster.starting import starting_serve

        check()
        ray.init(
            # Otherwise Ray puts the current folder first on its workers' path, before the standard library.
            job_config=JobConfig(_client_job=True),
            address=server.ray_address or "local",  # never another Ray that runs on this machine
            num_cpus=self._cpus() if self._owns_ray else None,
            include_dashboard=False if self._owns_ray else None,
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
        check()
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        with starting_serve(
            http_options={
                "host": own_host(self._settings),
                "port": server.http_port,
                "keep_alive_timeout_s": KEEP_ALIVE_S,
            },
            grpc_options=grpc_options(self._settings) if serves_grpc(self._settings) else None,
        ):
            check()
            gpus = "GPU" in ray.cluster_resources()
            for spec in self._settings.model_specs():
                if spec.resources.gpus and not gpus and self._owns_ray:
                    self._say(
                        f"WARNING: {spec.name} asks for a GPU, but this machine has none: it is served on the CPU"
                    )
            deploy(self._settings, gpus=gpus or not self._owns_ray)

    def _warn_of_no_history(self) -> None:
        if self._settings.features is not None:
            try:
                pushes_folder(self._settings)
            except NoHistory as error:
                self._say(f"WARNING: features: {error}; what is pushed is kept online only, and is in no training set")

    def _own_environment(self) -> dict[str, str]:
        """Returns the variables for all processes of a Ray that starts here. A Ray that already runs has its own token
        and folders. Raises StartFailed."""
        try:
            folder = kept_folder()
        except Unsafe as error:
            raise StartFailed(str(error)) from None
        token = token_environment(folder, os.environ, home())
        for path in token.values():
            self._say(f"WARNING: {home_trouble(home())}: Ray's token is in {path}")
        own = {SECRET: token_hex(16), ALONE: "1"}
        ports = replicas_environment(self._settings.server.http_port, machines_ports())
        listening = listening_environment(self._settings)
        return own | token | haproxy_environment(folder) | ports | listening | resting_environment(os.environ)

    def _check_ports(self) -> None:
        """Raises StartFailed if a port is taken. Ray would notice later, and log a page of tracebacks."""
        checks = check_ports(self._settings.server, haproxy=uses_haproxy(self._settings))
        taken = [check for check in checks if check.verdict is Verdict.FAIL]
        if taken:
            raise StartFailed("\n".join(f"{one.name}, {one.finding}; {one.advice}" for one in taken))

    def wait_until_ready(self, stop: StopSignal | None = None) -> bool:
        """Waits until all models answer; returns False if a signal to stop came first. Raises StartFailed."""
        wait = stop.wait if stop else _pause
        from ray import serve

        waiting = {FRONT, *self._settings.applications()}
        give_up_s = time.monotonic() + READY_TIMEOUT_S
        while waiting:
            if wait(ASK_S):
                return False
            applications = serve.status().applications
            for name in sorted(waiting):
                if self._is_up(name, applications.get(name)):
                    waiting.discard(name)
                    if name != FRONT:
                        self._say(f"{name} is up")
            if time.monotonic() > give_up_s:
                raise StartFailed(f"not ready after {READY_TIMEOUT_S:g} s: {', '.join(sorted(waiting))}")
        return not wait(0)

    def announcement(self) -> list[str]:
        """Returns the lines to print when all is up: the address, the models, and a call that works as printed."""
        url = self.url()
        lines = [f"Headway is ready at {url}", *self._grpc_announcement()]
        for application, model in self._settings.applications().items():
            facts = get_json(f"{url}{self._settings.path_of(application)}/config")["parameters"]
            door, device = (facts[key]["string_value"] for key in ("door", "device"))
            count = f"{'up to ' if model.scaling else ''}{model.most_replicas()} replica(s)"
            lines.append(f"  {application}: ready on {device}, {door} door, {count}")
        asks = self._settings.server.needs_credentials
        if asks:
            make = f"headway keys create --tenant me --scope predict --config {shlex.quote(str(self._config_path))}"
            lines += ["callers need a key; make one:", f"  KEY=$({make})"]
        key = ' -H "Authorization: Bearer $KEY"' if asks else ""
        for application, model in self._settings.applications().items():
            if model.example and application == model.name:
                path = model_path(model.name)
                lines += ["try it:", f"  curl -s {url}{path}/infer{key} -d '{model.example.strip()}'"]
        return lines

    def url(self) -> str:
        return self._settings.server.url

    def _grpc_announcement(self) -> list[str]:
        """Returns the address of gRPC, or a warning that says what is missing; nothing if gRPC is off."""
        server = self._settings.server
        if not server.grpc_port:
            return []
        if not serves_grpc(self._settings):
            return ["WARNING: gRPC is not served, because it needs HAProxy; set server.grpc_port: null to turn it off"]
        address = f"{server.own_host}:{server.grpc_port}"
        model = self._settings.model_specs()[0].name
        if answers_over_grpc(address, model):
            return [f"gRPC at {address}"]
        return [
            f"WARNING: gRPC at {address} only for calls with the metadata `application: <model>`; see headway doctor"
        ]

    def stop(self) -> None:
        """Ends all processes that `start` started. On a Ray that was already running, deletes only our applications."""
        if self._bystanders is None:
            return
        ours = descendants(os.getpid()) - self._bystanders
        if not ours and self._owns_ray:
            return
        import ray
        from ray import serve

        if not self._owns_ray:
            if not ray.is_initialized():
                return
            for name in (FRONT, *self._settings.applications()):
                serve.delete(name, _blocking=False)
            ray.shutdown()
            return
        if ray.is_initialized():
            ray.shutdown()
        # Includes processes that an interrupted start has created in the meantime.
        end(ours | descendants(os.getpid()) - self._bystanders, patience_s=DRAIN_S)

    def _cpus(self) -> int:
        """Returns the number of CPUs to declare to Ray, which uses it only to place replicas.

        It may exceed the cores of the machine: too few cores slow models down, but do not stop them. It leaves a place
        for one more replica, so that an update can start the next version before it stops the present one."""
        specs = self._settings.model_specs()
        wanted = sum(spec.resources.cpus * spec.replicas for spec in specs)
        there = len(os.sched_getaffinity(0))
        if wanted > there:
            self._say(f"WARNING: the models ask for {ceil(wanted)} CPUs, this machine has {there}: they will share")
        return max(ceil(wanted + max(spec.resources.cpus for spec in specs)), there)

    def _is_up(self, name: str, application: Any | None) -> bool:
        try:
            count = expected(application)
        except NeverUp as error:
            raise StartFailed(f"{name} did not start: {error}") from None
        if name == FRONT:
            return count > 0 and answers(f"{self.url()}/v2/health/ready")
        return count > 0 and hears(self.url(), self._settings.path_of(name), count)


def _pause(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def get_json(url: str) -> dict[str, Any]:
    with ask(own_request(url), timeout_s=10) as response:
        answer: dict[str, Any] = json.load(response)
        return answer
