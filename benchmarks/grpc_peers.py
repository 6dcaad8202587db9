"""CPU per request over gRPC, 4 KB, no-op, all processes of a server summed: Headway, bare grpc.aio servers, Triton.

    python -m benchmarks.grpc_peers [--rounds N] [--seconds S] [--connections C] [--streams M] [--only NAME ...]

Interleaved rounds, medians. The load comes from h2load (Debian: nghttp2-client) on this machine. Triton is taken from
the environment that `python -m benchmarks.peers` or `benchmarks.arena` creates; without it, Triton is skipped with a
message.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import grpc

from benchmarks.arena import catalog as arena
from benchmarks.peers import accounting
from benchmarks.peers.catalog import HERE, ROOT, SERVERS
from benchmarks.peers.environment import Environment, clean
from benchmarks.peers.request import ROW, WIDTH
from benchmarks.peers.running import running
from serving.protocol.pb import SERVICE, message

METHOD = f"/{SERVICE}/ModelInfer"
WARM_UP_S = 1.0
_STARTED = re.compile(r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed")


@dataclass(frozen=True, slots=True)
class Server:
    name: str
    port: int
    command: tuple[str, ...]
    environment: dict[str, str]
    model: str = "noop"


def servers(environment: Environment) -> Iterator[Server]:
    ours = {**clean(), "PYTHONPATH": str(ROOT)}
    yield Server("headway", 8398, (sys.executable, "-m", "serving", "serve", str(HERE / "headway_grpc.yaml")), ours)
    bare = (sys.executable, str(SERVERS / "grpc_bare.py"), "--port")
    yield Server("grpc.aio, uvloop", 8395, (*bare, "8395", "--loop", "uvloop"), clean())
    yield Server("grpc.aio, asyncio", 8396, (*bare, "8396", "--loop", "asyncio"), clean())
    if environment.is_complete():
        yield _triton(environment, 8397)


def _triton(environment: Environment, port: int) -> Server:
    return Server(
        "triton",
        port,
        (
            str(environment.triton_server),
            f"--model-repository={SERVERS / 'triton'}",
            f"--backend-directory={environment.triton_backends}",
            "--allow-http=false",
            "--allow-metrics=false",
            "--grpc-address=127.0.0.1",
            f"--grpc-port={port}",
        ),
        {
            **clean(),
            "PYTHONPATH": f"{environment.site_packages}:{SERVERS}",
            "LD_LIBRARY_PATH": environment.triton_libraries,
        },
    )


def request(model: str) -> bytes:
    built = message("ModelInferRequest")(model_name=model)
    built.inputs.add(name="x", datatype="FP32", shape=[1, WIDTH])
    built.raw_input_contents.append(ROW)
    encoded: bytes = built.SerializeToString()
    return encoded


def answers(server: Server) -> bool:
    """Returns whether one call gets the answer of the no-op model: a row of one number."""
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        try:
            got = channel.unary_unary(METHOD)(request(server.model), timeout=5)
        except grpc.RpcError:
            return False
    return list(message("ModelInferResponse").FromString(got).outputs[0].shape) == [1, 1]


def drive(server: Server, seconds: float, connections: int, streams: int, body: Path) -> int:
    """Drives a server and returns the number of answered requests. Raises RuntimeError if more requests failed than
    were in flight at the end."""
    command = ["h2load", "-t1", f"-c{connections}", f"-m{streams}", f"-D{seconds:g}", "-d", str(body)]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    ran = subprocess.run(
        [*command, f"http://127.0.0.1:{server.port}{METHOD}"],
        capture_output=True, text=True, check=True, timeout=seconds + 60,
    )  # fmt: skip
    match = _STARTED.search(ran.stdout)
    if match is None or int(match[3]) > connections * streams:
        raise RuntimeError(ran.stdout[-1500:])
    return int(match[2])


def measure(server: Server, options: argparse.Namespace, folder: Path) -> tuple[float, float, dict[str, float]]:
    """Returns (microseconds of CPU per request, requests per second, microseconds by process)."""
    body = folder / "body"
    content = request(server.model)
    body.write_bytes(b"\0" + len(content).to_bytes(4, "big") + content)
    with running(server.command, server.environment, ROOT, folder / "log", port=server.port) as started:
        started.wait_until(lambda: answers(server), 150)
        drive(server, WARM_UP_S, options.connections, options.streams, body)
        before = started.members()
        answered = drive(server, options.seconds, options.connections, options.streams, body)
        spent = accounting.spent(before, started.members())
        if not answers(server):
            raise RuntimeError(f"{server.name} no longer answers correctly")
    by_process = {name: cpu_s / answered * 1e6 for name, cpu_s in spent.items()}
    return sum(by_process.values()), answered / options.seconds, by_process


def main(say: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--peers", type=Path, default=ROOT / ".headway" / "peers")
    options = parser.parse_args()
    environment = Environment(options.peers)
    if not environment.is_complete():
        environment = arena.environment(ROOT / ".headway" / "arena")
    if not environment.is_complete():
        say("Triton is skipped: `python -m benchmarks.peers` creates its environment")
    chosen = [server for server in servers(environment) if not options.only or server.name in options.only]
    seen: dict[str, list[float]] = {server.name: [] for server in chosen}
    for _ in range(options.rounds):
        for server in chosen:
            with tempfile.TemporaryDirectory() as folder:
                cpu_us, per_second, by_process = measure(server, options, Path(folder))
            seen[server.name].append(cpu_us)
            shares = ", ".join(f"{name} {us:.0f}" for name, us in by_process.items() if us >= 1)
            say(f"{server.name:20} {cpu_us:7.0f} us  {per_second:7.0f}/s  ({shares})")
    say("")
    for name, values in seen.items():
        say(f"{name:20} {median(values):7.0f} us CPU per request, median of {len(values)}")


if __name__ == "__main__":
    main()
