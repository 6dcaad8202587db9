"""A scenario in a real locust: it must send the same requests as the load generator."""

import asyncio
import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from loadtest.loading import load
from loadtest.wires import Address
from loadtest.wires.http import HttpWire
from loadtest.workload import prepare
from tests.loadtest.scripted import ScriptedServer, answer, scripted

# locust is not imported here, because its import patches sockets and threads of the whole process.
pytestmark = pytest.mark.skipif(find_spec("locust") is None, reason="pip install 'headway[locust]'")

SCENARIO = """
from loadtest.scenario import Scenario, task

class Shop(Scenario):
    model = "noop"
    tenants = {"shop": 1, "crawler": 1}

    @task(3, deadline_ms=200)
    def query(self):
        return {"text": [self.sentence(3)]}

    @task
    def document(self):
        return self.fill(words=30)
"""
LOCUSTFILE = """
import gevent
from locust import events
from loadtest.locust_user import user_of
from shop import Shop

ShopUser = user_of(Shop, seed=5)
answered = 0

@events.request.add_listener
def ends_after_forty(**_):
    global answered
    answered += 1
    if answered == 40:
        gevent.spawn(environment.runner.quit)  # not from a user of it, who would end in the middle of it

@events.init.add_listener
def remember(environment, **_):
    globals()["environment"] = environment
"""
METADATA = json.dumps({"name": "noop", "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1, 1]}]}).encode()


async def locust(folder: Path, server: ScriptedServer) -> tuple[int, str]:
    host = server.url.partition("/v2")[0]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "locust", "-f", "locustfile.py", "--headless", "-u", "2", "-r", "2",
        "--host", host, "--only-summary", "--run-time", "60s", cwd=folder,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=environment(folder),
    )  # fmt: skip
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


def environment(folder: Path) -> dict[str, str]:
    paths = [str(folder), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def test_a_scenario_runs_through_locust_with_the_same_requests(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SCENARIO)
    (tmp_path / "locustfile.py").write_text(LOCUSTFILE)

    async def run() -> tuple[int, str, ScriptedServer, set[bytes]]:
        async with scripted(lambda _, head: answer(body=METADATA if head.startswith("GET") else b"ok")) as server:
            address = Address.parse(server.url)
            wire = HttpWire(address, "binary")
            workload = await prepare(load(tmp_path / "shop.py"), wire, address, seed=5)
            await wire.close()
            before = len(server.heads)
            code, said = await locust(tmp_path, server)
            del server.heads[:before], server.bodies[:before]
            return code, said, server, {each.request.partition(b"\r\n\r\n")[2] for each in workload.requests}

    code, said, server, ours = asyncio.run(run())
    assert code == 0, said
    posted = [(head, body) for head, body in zip(server.heads, server.bodies, strict=True) if head.startswith("POST")]
    assert len(posted) >= 38  # each of the two users may have read the model's metadata first
    assert {body for _, body in posted} <= ours
    heads = "".join(head.lower() for head, _ in posted)
    assert "x-tenant: shop" in heads
    assert "x-tenant: crawler" in heads
    assert "query" in said
    assert "document" in said
