"""Checks whether this machine can serve: one check per possible fault, each with advice.

Ray and torch are not imported in this process, so the checks take a second or two, even if those are broken.
"""

import errno
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from math import ceil
from pathlib import Path

from models.cores import usable_cores
from serving.cluster.environment import haproxy_binary, haproxy_command
from serving.cluster.machine import available_memory_bytes
from serving.config import ServerSettings, Settings
from serving.operate.keeping import Unsafe, home, home_trouble, kept_folder
from serving.telemetry.gpu import read_once
from serving.telemetry.snapshot import GpuReading

TESTED_RAY = "2.60"
GIB = 1024**3
TORCH_PROBE = (
    "import json, torch; print(json.dumps({'version': torch.__version__, 'built_for': torch.version.cuda,"
    " 'devices': torch.cuda.device_count() if torch.cuda.is_available() else 0}))"
)


class Verdict(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The result of one check. advice: what to do; empty if nothing has to be done."""

    name: str
    verdict: Verdict
    finding: str
    advice: str = ""


def ok(name: str, finding: str) -> Check:
    return Check(name=name, verdict=Verdict.OK, finding=finding)


def warn(name: str, finding: str, advice: str) -> Check:
    return Check(name=name, verdict=Verdict.WARN, finding=finding, advice=advice)


def fail(name: str, finding: str, advice: str) -> Check:
    return Check(name=name, verdict=Verdict.FAIL, finding=finding, advice=advice)


def examine(settings: Settings | None = None) -> Iterator[Check]:
    """Yields the checks one by one as they finish. With settings, also checks whether this machine has the resources
    and ports that they ask for."""
    specs = settings.model_specs() if settings else ()
    server = settings.server if settings else None
    local = server is None or server.ray_address is None
    yield check_python(sys.version_info[:2])
    yield check_ray(installed("ray"))
    with_haproxy = server is None or server.haproxy == "auto"
    yield check_haproxy(haproxy_binary(), wanted=with_haproxy)
    wants_grpc = server is None or bool(server.grpc_port)
    if wants_grpc:
        yield check_grpc(haproxy_command(), haproxy=with_haproxy and haproxy_binary() is not None)
    yield from check_torch(probe_torch(), wanted_gpus=sum(spec.resources.gpus * spec.replicas for spec in specs))
    yield from check_driver(driver_readings())
    if local:
        wanted_cpus = sum(spec.resources.cpus * spec.replicas for spec in specs)
        yield check_cores(usable_cores(), wanted_cpus)
        yield check_memory(available_memory_bytes(), replicas=sum(spec.replicas for spec in specs))
        yield check_folders(home_trouble(home()))
        yield check_disk("/tmp", shutil.disk_usage("/tmp").free)
        yield check_shared_memory(Path("/dev/shm"))
        yield from check_ports(server or ServerSettings(), haproxy=with_haproxy)


def check_python(found: tuple[int, ...]) -> Check:
    text = f"Python {'.'.join(map(str, found))}"
    return ok("python", text) if found >= (3, 11) else fail("python", text, "install Python 3.11 or newer")


def check_ray(found: str | None) -> Check:
    if found is None:
        return fail("ray", "not installed", "pip install 'ray[serve]'")
    if not found.startswith(f"{TESTED_RAY}."):
        advice = f"install ray[serve]=={TESTED_RAY}.*: the fast door relies on hooks of that release"
        return warn("ray", f"Ray {found}; tested with {TESTED_RAY}", advice)
    return ok("ray", f"Ray {found}")


def check_haproxy(binary: str | None, *, wanted: bool) -> Check:
    if not wanted:
        return warn("haproxy", "turned off", "server.haproxy: auto is many times faster than Ray's Python proxy")
    if binary is None:
        return warn("haproxy", "not found: Ray's slower Python proxy is used", "pip install 'ray[serve]' on Linux")
    return ok("haproxy", binary)


def check_grpc(launcher: str | None, *, haproxy: bool) -> Check:
    """Checks for gRPC. launcher: the command `headway-haproxy`, None if it is not installed."""
    if not haproxy:
        return warn(
            "grpc", "needs HAProxy: only HTTP is served", "pip install 'ray[serve]' on Linux, or set grpc_port: null"
        )
    if launcher is None:
        advice = "pip install headway, with its command headway-haproxy, which lets HAProxy read the model's name"
        return warn("grpc", "only for calls with the metadata `application: <model>`", advice)
    return ok("grpc", f"routed by the model a call names, by {launcher}")


def check_torch(probe: dict[str, object] | str, *, wanted_gpus: float) -> Iterator[Check]:
    """Checks torch and its devices. probe: the result of `probe_torch`."""
    if isinstance(probe, str):
        yield fail("torch", probe, "pip install torch")
        return
    yield ok("torch", f"torch {probe['version']}")
    devices, built_for = int(str(probe["devices"])), probe["built_for"]
    if devices:
        yield ok("cuda", f"{devices} device(s), torch built for CUDA {built_for}")
    elif built_for:
        advice = "check the driver with nvidia-smi; without a GPU everything runs on the CPU"
        yield warn("cuda", f"torch is built for CUDA {built_for} and sees no device", advice)
    else:
        yield ok("cuda", "torch is built without CUDA: models run on the CPU")
    if wanted_gpus > devices:
        advice = "on this machine such models are served on the CPU; on a cluster they wait until a node has a GPU"
        yield warn("gpus", f"the models ask for {wanted_gpus:g} GPUs, torch sees {devices}", advice)


def check_driver(found: Sequence[GpuReading] | str) -> Iterator[Check]:
    """Checks the GPUs. found: the driver's reading of each GPU, or the reason why it has none."""
    if isinstance(found, str):
        yield ok("nvml", f"{found}: no GPU readings")
    elif not found:
        yield ok("nvml", "the driver reports no device")
    for gpu in found if not isinstance(found, str) else ():
        text = f"{gpu.name}, {gpu.memory_used_bytes / GIB:.1f} of {gpu.memory_total_bytes / GIB:.1f} GiB in use"
        if gpu.mig:
            text += ", divided into parts (MIG)"
        hot = [reason for reason in gpu.throttled_by or () if reason != "power"]
        if gpu.ecc_uncorrected:
            advice = "its memory is failing: take it out of service and have it examined"
            yield warn("nvml", f"{text}, {gpu.ecc_uncorrected} uncorrected memory errors", advice)
        elif hot:
            advice = "it is slower than it could be: check its cooling and power supply"
            yield warn("nvml", f"{text}, slowed down: {', '.join(hot)}", advice)
        else:
            yield ok("nvml", text)


def check_cores(cores: float, wanted: float) -> Check:
    if wanted > cores:
        advice = "lower resources.cpus or replicas, or expect longer latencies"
        return warn("cores", f"the models ask for {wanted:g} cores, {cores:g} are available", advice)
    return ok("cores", f"{cores:g} available, {wanted:g} asked for" if wanted else f"{cores:g} available")


def check_memory(free_bytes: int, replicas: int) -> Check:
    # A process with torch needs about half a gigabyte without weights, Ray itself about one.
    needed = GIB * (1 + ceil(replicas / 2))
    text = f"{free_bytes / GIB:.1f} GiB free"
    if free_bytes < needed:
        return warn("memory", text, f"{replicas} replica(s) need about {needed / GIB:.0f} GiB, weights not included")
    return ok("memory", text)


def check_folders(trouble: str) -> Check:
    """Checks the folders for files. trouble: the reason why the home folder cannot be written, "" if it can."""
    try:
        folder = kept_folder()
    except Unsafe as error:
        return fail("folders", str(error), "a server cannot start without this folder")
    if trouble:
        advice = (
            f"Ray's token is kept in {folder} instead; for Ray's own commands set RAY_AUTH_TOKEN_PATH to it, or HOME"
        )
        return warn("folders", trouble, advice)
    return ok("folders", f"home and {folder} can be written")


def check_disk(folder: str, free_bytes: int) -> Check:
    text = f"{free_bytes / GIB:.1f} GiB free in {folder}"
    if free_bytes < GIB:
        return fail("disk", text, "Ray keeps its logs and sockets there: free at least 1 GiB, or set RAY_TMPDIR")
    return ok("disk", text)


def check_shared_memory(folder: Path) -> Check:
    if not folder.is_dir():
        return warn("shared memory", f"no {folder}", "Ray falls back to slower files in /tmp")
    free = shutil.disk_usage(folder).free
    text = f"{free / GIB:.2f} GiB free in {folder}"
    if free < GIB // 4:
        return warn("shared memory", text, "in a container, start it with --shm-size=1g")
    return ok("shared memory", text)


def check_ports(server: ServerSettings, *, haproxy: bool) -> Iterator[Check]:
    """Checks every port that a server with these settings opens, except those of the replicas."""
    yield check_port(server.http_port, "the server", server.host)
    if not haproxy:
        return
    ports = server.ray_ports
    if haproxy_command() is None:  # with that command they stay closed
        yield check_port(ports.statistics, "HAProxy's statistics")
        yield check_port(ports.metrics, "HAProxy's metrics")
    yield check_port(ports.fallback, "Ray Serve's fallback proxy")
    if server.grpc_port:
        yield check_port(server.grpc_port, "gRPC", server.host)
        yield check_port(ports.fallback_grpc, "Ray Serve's fallback proxy for gRPC")


def check_port(port: int, owner: str, host: str = "0.0.0.0") -> Check:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        return fail(f"port {port}", f"server.host {host}: {error.strerror}", "name an address of this machine")
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                return fail(f"port {port}", f"server.host {host}: {error.strerror}", "name an address of this machine")
            advice = f"find its user with `ss -ltnp 'sport = :{port}'`; another Headway perhaps"
            return fail(f"port {port}", f"wanted by {owner}: {error.strerror}", advice)
    return ok(f"port {port}", f"free, for {owner}")


def probe_torch(timeout_s: float = 60.0) -> dict[str, object] | str:
    """Imports torch in another process, which a broken driver may crash. Returns its version, its CUDA version and the
    number of devices, or the reason why the import failed."""
    command = [sys.executable, "-W", "ignore", "-c", TORCH_PROBE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return f"importing torch took longer than {timeout_s:g} s"
    if done.returncode != 0:
        return f"importing torch failed: {(done.stderr.strip().splitlines() or ['without a message'])[-1]}"
    facts: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return facts


def driver_readings() -> Sequence[GpuReading] | str:
    """Returns the driver's reading of each GPU, or the reason why there is none."""
    try:
        import pynvml
    except ImportError:
        return "nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return str(error)
    try:
        return read_once(pynvml)
    finally:
        pynvml.nvmlShutdown()


def installed(package: str) -> str | None:
    """Returns the version of an installed package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
