"""One Headway for all of this folder, and the question at the end of every story: are you well?"""

import asyncio
import json
import os
import shutil
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.config import load_settings
from serving.operate.launch import Cluster
from serving.operate.processes import descendants
from tests.chaos.crowd import GRPC_PORT, HOST, PORT, Crowd

BUDGET_S = 2.0
FORWARD_TIMEOUT_S = 2.0
# By then every request has ended: it was refused, answered, or given up with its forward pass, and a second.
LATEST_S = max(BUDGET_S, FORWARD_TIMEOUT_S) + 1.0
MAX_MEMORY_MB = 1024
# How much more there may be afterwards than before.
ROOM = {"queued": 0, "in_flight": 0, "tasks": 8, "memory_bytes": 64 * 1024 * 1024, "descriptors": 24}
_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))

MODEL = {
    "factory": "troubled:troubled",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
    "resources": {"cpus": 0.1},
    "latency_budget_ms": BUDGET_S * 1e3,
    "limits": {"forward_timeout_s": FORWARD_TIMEOUT_S, "max_batch_rows": 16, "max_memory_mb": MAX_MEMORY_MB},
}
SETTINGS = {
    "server": {"http_port": PORT, "grpc_port": GRPC_PORT},
    "models": [{"name": "steady", "replicas": 2, **MODEL}],
}


@pytest.fixture(scope="package")  # one Ray at a time: it ends before another folder starts its own
def chaos(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Headway"]:
    folder = tmp_path_factory.mktemp("chaos")
    shutil.copy(Path(__file__).with_name("troubled.py"), folder)
    path = folder / "headway.yaml"
    path.write_text(yaml.safe_dump(SETTINGS))
    cluster = Cluster(load_settings(path), path, lambda text: None)
    try:
        cluster.start()
        assert cluster.wait_until_ready()
        yield Headway()
    finally:
        cluster.stop()


class Headway:
    """The running server, its processes, and its health."""

    def processes(self, name: str) -> list[int]:
        """Returns our processes whose command line begins with this name or whose program has it."""
        found = []
        for pid in descendants(os.getpid()):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
            if command.startswith(name) or Path(command.split(" ")[0]).name == name:
                found.append(pid)
        return found

    def replicas(self) -> list[int]:
        return self.processes("ray::ServeReplica:steady:")

    def kill(self, pids: list[int]) -> None:
        assert pids
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    async def until(self, name: str, is_so: Any, patience_s: float = 60.0) -> None:
        try:
            async with asyncio.timeout(patience_s):
                while not is_so():
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"not {name} after {patience_s:g} s") from None

    def state(self) -> dict[str, Any]:
        """Returns the state of the only model, as its replicas report it."""
        with _DIRECTLY.open(f"http://{HOST}:{PORT}/debug/state", timeout=10) as answer:
            return dict(json.loads(answer.read())["models"][0])

    def is_whole(self) -> bool:
        try:
            state = self.state()
        except (OSError, ValueError, IndexError):
            return False
        return state["running"] == state["wanted"] == len(state["replicas"]) and not state["silent"]


def worst(state: dict[str, Any], fact: str) -> int:
    return max(int(replica[fact]) for replica in state["replicas"])


async def are_you_well(headway: Headway, before: dict[str, Any], usual_p95_s: float) -> None:
    """All replicas there, ledgers balanced and empty, no task or descriptor or memory left behind, quick as ever.

    Looked at until it is so: another program may disturb the machine, and what ends does so in its own time."""
    await headway.until("whole", headway.is_whole)
    async with Crowd("steady") as crowd:
        await crowd.until_well(200)
        await headway.until("as quick as before", lambda: crowd.p95_s() < max(0.25, 3 * usual_p95_s))
    for fact, room in ROOM.items():
        most = worst(before, fact) + room
        await headway.until(f"back to {most} {fact}", lambda fact=fact, most=most: worst(headway.state(), fact) <= most)
    assert {replica["balance"] for replica in headway.state()["replicas"]} == {"good"}


async def usual(headway: Headway) -> tuple[dict[str, Any], float]:
    """Returns the state before the fault, and the 95th percentile of latency in seconds."""
    await headway.until("whole", headway.is_whole)
    async with Crowd("steady") as crowd:
        await crowd.until_well(200)
    return headway.state(), crowd.p95_s()
