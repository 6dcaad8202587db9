"""The servers to which hostile inputs are sent: a real `headway serve`, or its servers in one process without Ray."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, Self

from serving.cluster.ports import grpc_ports, listening_ports
from serving.port_ranges import FAST_GRPC_DISTANCE, RAY_HTTP
from tests.hostile.inputs import Address, Doors
from tests.patience import eventually

SETTINGS = Path(__file__).with_name("served") / "headway.yaml"
MODELS = ("numbers", "texts", "pictures")
FRONT = "front"  # not a model: the process that gets calls and requests without a model's name
HOST = "127.0.0.1"
HTTP, GRPC = (HOST, 18461), (HOST, 18463)
START_S, STOP_S, ANSWER_S = 180.0, 60.0, 60.0
Replica = dict[str, Any]
Memory = dict[str, int]  # resident memory in bytes, by the model that the process serves
_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy for requests to our own servers


class Place(Protocol):
    """A running server whose replicas can be examined."""

    doors: Doors

    def find_doors(self) -> None:
        """Finds the addresses of the replicas again, after replicas may have been replaced."""
        ...

    def look(self, watch_s: float | None = None) -> list[Replica]:
        """Returns `pid`, `memory_bytes`, `balance` and `loop` of all replicas (`serving.cluster.replica.loop_watch`).

        Waits until each of them answers. watch_s: then starts to measure the event loops for this time."""
        ...


class Served:
    """Runs `headway serve` with a Ray of its own, on fixed ports, in a process group of its own."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._log = tempfile.NamedTemporaryFile("w+", suffix=".log")  # noqa: SIM115 - closed in __exit__

    def __enter__(self) -> Self:
        self._say("starting headway serve ...")
        command = [sys.executable, "-m", "serving", "serve", str(SETTINGS)]
        self._process = subprocess.Popen(
            command, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True, cwd=Path(__file__).parents[2]
        )
        try:
            eventually(self._is_ready, patience_s=START_S, beside=self.log)
            self.find_doors()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._log.close()

    def find_doors(self) -> None:
        replicas = {replica["model"]: replica["pid"] for replica in self.look()}
        ports = {model: listening_ports(Path(f"/proc/{pid}")) for model, pid in replicas.items()}
        grpc = set(grpc_ports())
        self.doors = Doors(
            http=HTTP,
            grpc=GRPC,
            direct_http={model: _one(found & set(RAY_HTTP)) for model, found in ports.items()},
            fast={
                model: _one({port + FAST_GRPC_DISTANCE for port in found & grpc} & found)
                for model, found in ports.items()
            },
        )

    def look(self, watch_s: float | None = None) -> list[Replica]:
        query = "" if watch_s is None else f"?watch_loop_s={watch_s:g}"
        return eventually(lambda: self._replicas(query), _are_all, patience_s=ANSWER_S, beside=self.log)

    def log(self) -> str:
        return Path(self._log.name).read_text()[-2000:]

    def _replicas(self, query: str) -> list[Replica]:
        try:
            with _DIRECTLY.open(f"http://{HTTP[0]}:{HTTP[1]}/debug/state{query}", timeout=10) as response:
                state = json.load(response)
        except (OSError, ValueError):
            return []
        front = state["front"] | {"model": FRONT, "balance": "good"}
        return [front, *(one | {"model": model["name"]} for model in state["models"] for one in model["replicas"])]

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, f"headway serve has ended: {self.log()}"
        return "Headway is ready" in self.log() and _are_all(self._replicas(""))


class Alone:
    """Runs the servers in one process without Ray, `tests.hostile.alone`. Starts within seconds; messages of 4 MiB at
    most."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._log = tempfile.NamedTemporaryFile("w+", suffix=".log")  # noqa: SIM115 - closed in __exit__

    def __enter__(self) -> Self:
        self._say("starting servers in one process ...")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.alone"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        state = self._tell("")
        http, grpc = tuple(state["http"]), tuple(state["grpc"])
        self.doors = Doors(http, grpc, dict.fromkeys(MODELS, http), dict.fromkeys(MODELS, grpc))
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def find_doors(self) -> None:
        """Does nothing: the process is never replaced."""

    def look(self, watch_s: float | None = None) -> list[Replica]:
        replica: Replica = self._tell("look" if watch_s is None else f"{watch_s:g}")
        return [replica]

    def _tell(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if line:
            print(line, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer, f"the server has ended: {self._process.wait()} {Path(self._log.name).read_text()[-2000:]}"
        state: dict[str, Any] = json.loads(answer)
        return state


def memory_bytes(pids: list[int]) -> int:
    """Returns the resident memory of these processes together; those that have ended count as 0."""
    total = 0
    for pid in pids:
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            continue
    return total


def settled(place: Place, bounds: Memory, patience_s: float) -> list[Replica]:
    """Returns the replicas as soon as none holds more memory than its bound, or when the patience ends."""
    give_up_s = time.monotonic() + patience_s
    while True:
        replicas = place.look()
        held = memory_of(replicas)
        if all(held[name] <= bound for name, bound in bounds.items()) or time.monotonic() > give_up_s:
            return replicas
        time.sleep(0.5)


def memory_of(replicas: list[Replica]) -> Memory:
    return {replica["model"]: int(replica["memory_bytes"]) for replica in replicas}


def _are_all(replicas: list[Replica]) -> bool:
    return {replica["model"] for replica in replicas} == {*MODELS, FRONT}


def _one(ports: set[int]) -> Address:
    (port,) = ports
    return HOST, port
