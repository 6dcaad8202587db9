"""Measures how many requests `headway serve` still answers when more are asked than it can compute.

    python -m benchmarks.overload                               # the MLP of the arena over HTTP
    python -m benchmarks.overload --wire grpc --model noop --rates 4000 8000 16000

h2load sends requests in open loop, since a load generator in Python would need the cores that are measured. It does not
read what an answer says; so the answered requests are those that the model's statistics count, and the late ones those
that took longer than the latency budget, refusals included. Needs Linux and h2load (package nghttp2-client).
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import yaml

from benchmarks.at_rest import ARENA, environment, watch
from benchmarks.peers.running import Running, running
from serving.config import ModelSettings, Settings, load_settings
from serving.protocol.pb import message

FOLDER = Path(".headway/overload")
CONNECTIONS = {"http": 64, "grpc": 16}  # all send at the same instants, so as many requests come at once
STREAMS = 256  # the most requests of a connection in flight, over gRPC
WARM_UP_S = 2
REPORTED = (
    "  asked {asked:6.0f}/s  sent {sent:6.0f}/s  answered {answered:6.0f}/s  late {late:5.0f}/s  p99 {p99:5.0f} ms"
)


def main() -> None:
    options = _options()
    settings = load_settings(ARENA)
    model = settings.applications()[options.model]
    for number in range(options.rounds):
        with served(settings, options.model, FOLDER):
            print(f"round {number + 1}: {model.name} over {options.wire}, budget {model.latency_budget_ms:.0f} ms")
            for rate in options.rates:
                _load(settings, model, options.wire, rate, WARM_UP_S)
                print(REPORTED.format(**_load(settings, model, options.wire, rate, options.seconds)), flush=True)


def _load(settings: Settings, model: ModelSettings, wire: str, rate: float, seconds: int) -> dict[str, float]:
    """Sends requests and returns what became of them, per second."""
    log = FOLDER / "h2load.log"
    log.unlink(missing_ok=True)
    before = _answered(settings, model.name)
    clients = CONNECTIONS[wire]
    command = ["h2load", "-c", str(clients), "-D", str(seconds), f"--rps={rate / clients}", f"--log-file={log}"]
    subprocess.run([*command, *_request(settings, model.name, wire)], check=True, stdout=subprocess.DEVNULL)
    took_ms = sorted(int(line.split("\t")[2]) / 1000 for line in log.read_text().splitlines())
    if not took_ms:
        raise SystemExit(f"h2load had no answer at all; see {FOLDER / 'server.log'}")
    budget_ms = model.latency_budget_ms or float("inf")
    return {
        "asked": rate,
        "sent": len(took_ms) / seconds,
        "answered": (_answered(settings, model.name) - before) / seconds,
        "late": sum(ms > budget_ms for ms in took_ms) / seconds,
        "p99": took_ms[len(took_ms) * 99 // 100],
    }


def _request(settings: Settings, model: str, wire: str) -> list[str]:
    """Writes the body of one request to a file; returns the arguments with which h2load repeats it."""
    values = np.random.default_rng(0).random((1, 1024), np.float32)
    body = FOLDER / "body"
    if wire == "http":
        body.write_bytes(values.tobytes())
        more = ["--h1", "-H", "inference-header-content-length: 0"]  # 0: the body is the raw data of the only input
        return [*more, "-d", str(body), f"{settings.server.url}/v2/models/{model}/infer"]
    request: Any = message("ModelInferRequest")(model_name=model)
    request.inputs.add(name="x", datatype="FP32", shape=values.shape)
    request.raw_input_contents.append(values.tobytes())
    encoded = request.SerializeToString()
    body.write_bytes(b"\0" + len(encoded).to_bytes(4, "big") + encoded)
    more = ["-m", str(STREAMS), "-H", "te: trailers", "-H", "content-type: application/grpc"]
    host = f"{settings.server.own_host}:{settings.server.grpc_port}"
    return [*more, "-d", str(body), f"http://{host}/inference.GRPCInferenceService/ModelInfer"]


def _answered(settings: Settings, model: str) -> int:
    with urlopen(f"{settings.server.url}/v2/models/{model}/stats") as answer:
        count: int = json.load(answer)["model_stats"][0]["inference_stats"]["success"]["count"]
    return count


@contextmanager
def served(
    settings: Settings, model: str, folder: Path, started: Callable[[Running], None] = lambda server: None
) -> Iterator[Running]:
    """Serves one model of the settings; yields when the server is ready. started: called before."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "served.yaml"
    path.write_text(yaml.safe_dump(settings.as_mapping(model)))
    command = [str(Path(sys.executable).with_name("headway")), "serve", str(path.resolve())]
    with running(command, environment(), Path.cwd(), folder / "server.log") as server:
        started(server)
        watch(server)
        yield server


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wire", choices=("http", "grpc"), default="http")
    parser.add_argument("--model", choices=("mlp", "noop"), default="mlp", help="of the arena (default mlp)")
    parser.add_argument("--rates", type=float, nargs="+", default=[1000, 2000, 4000, 8000], help="requests per second")
    parser.add_argument("--seconds", type=int, default=4, help="of load per rate (default 4)")
    parser.add_argument("--rounds", type=int, default=1, help="each starts the server again")
    options = parser.parse_args()
    if not shutil.which("h2load"):
        parser.error("h2load is missing; Debian and Ubuntu have it in the package nghttp2-client")
    return options


if __name__ == "__main__":
    main()
