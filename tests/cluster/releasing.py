"""A server whose model `ranker` is from a registry, for tests of releases on a real Ray, and the load on it."""

import asyncio
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import httpx
import pytest
import yaml

from serving.operate.launch import Cluster
from serving.registry.artifacts import hashed, push, survey
from serving.registry.changes import approval
from serving.registry.log import ModelLog
from serving.registry.manifest import Manifest
from serving.store.files import FileStore, open_files
from tests.cluster.conftest import GRPC_PORT, PORT, started
from tests.registry.stories import author

URL = f"http://127.0.0.1:{PORT}"
NET = """
import time

from models.reference import NumpyModel

def net(spec, error=0.0, slow_ms=0.0):
    def compute(x):
        if ((x[:, 0] > 1) & (x[:, 0] < 1 + error)).any():
            raise RuntimeError("the tree has no such branch")
        time.sleep((2 + slow_ms) / 1000)
        return (x * 3,)

    return NumpyModel(spec, compute)
"""
MODEL = {
    "factory": "net:net",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    "example": json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 0.5]}]}),
}
GOOD: dict[str, float] = {}
FAILING, SLOW = {"error": 0.2}, {"slow_ms": 30.0}


def version(store: FileStore, folder: Path, **options: float) -> str:
    """Registers a version with these options, approved, and returns its number."""
    folder.mkdir()
    (folder / "net.py").write_text(NET)
    (folder / "note.txt").write_text(f"{folder.name}\n")  # or equal versions would be one
    files = survey(folder)
    manifest = Manifest(files=hashed(files), model=MODEL | {"options": options})
    made = asyncio.run(push(store, "ranker", manifest, files, author()))
    asyncio.run(ModelLog(store, "ranker").append(approval(author("user:ben"), f"v{made.number}")))
    return made.number


def serving(folder: Path, *candidates: dict[str, float]) -> Iterator[Cluster]:
    """Starts the server with version 1 of the model; the registry has the candidates as 2, 3 and so on."""
    store = open_files(str(folder / "versions"))
    version(store, folder / "first")
    settings = {
        "server": {"http_port": PORT, "grpc_port": GRPC_PORT, "state": str(folder / "state")},
        "registry": {"place": "./versions"},
        "models": [{"name": "ranker", "factory": "registry:ranker@v1", "resources": {"cpus": 0.1}}],
    }
    (folder / "headway.yaml").write_text(yaml.safe_dump(settings))
    for number, options in enumerate(candidates):
        version(store, folder / f"candidate{number}", **options)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HEADWAY_CACHE", str(folder / "cache"))
        yield from started(folder / "headway.yaml")


class Load:
    """Threads that ask the model without naming a version, each with a sticky key of its own for every request.

    answers: how many had each (status, version). last_s: when each version answered for the last time."""

    def __init__(self, threads: int = 6) -> None:
        self.answers: Counter[tuple[int, str]] = Counter()
        self.failures: list[str] = []
        self.last_s: dict[str, float] = {}
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(seed,)) for seed in range(threads)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self, seed: int) -> None:
        drawn = Random(seed)
        with httpx.Client(base_url=URL, timeout=20) as client:
            while not self._end.is_set():
                x = [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1 + drawn.random(), 0.5]}]
                try:
                    answer = client.post(
                        "/v2/models/ranker/infer", json={"inputs": x}, headers={"x-routing-key": str(drawn.random())}
                    )
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                    continue
                told = answer.json()
                number = told.get("model_version", "?")
                self.answers[answer.status_code, number] += 1
                self.last_s[number] = time.time()
                if answer.status_code != 200:
                    self.failures.append(f"{answer.status_code} {told}")
                else:
                    self.told(client, answer)

    def told(self, client: httpx.Client, answer: httpx.Response) -> None:
        """Is called with every answer."""


def route() -> dict[str, object]:
    told: dict[str, object] = httpx.get(f"{URL}/v2/models/ranker/release").json()["route"]
    return told


def front_pid() -> int:
    return int(httpx.get(f"{URL}/debug/state").json()["front"]["pid"])


def kill(pid: int) -> None:
    os.kill(pid, 9)
