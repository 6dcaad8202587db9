"""Tests the recording of requests: what is recorded, what is not, and that the requests can be replayed."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtest.arrivals import schedule
from loadtest.loading import load
from loadtest.spec import BadSpec
from loadtest.wires import Address, Flight
from loadtest.workload import prepare
from serving.bounded_folder import PARTS
from serving.protocol.messages import TensorDescription
from serving.protocol.tensors import object_array
from serving.telemetry.recording import Recorded, Recording
from serving.testing.backend import EchoBackend
from tests.core.stories import ms
from tests.loadtest.scripted import ScriptedWire

DATATYPES = {"x": "FP32", "text": "BYTES"}
SECRET = "a secret of Ärger"


async def written(recording: Recording) -> None:
    """Waits until all lines are written by the thread."""
    for _ in range(1000):
        if not recording._lines._is_due:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the lines are not written")


def recorded(folder: Path, requests: list[dict[str, Any]], *, most_bytes: int = 1 << 20, model: str = "m") -> Recording:
    """Submits these requests to an echoing backend and returns their recording."""
    recording = Recording(folder, model=model, datatypes=DATATYPES, most_bytes=most_bytes)
    backend = Recorded(EchoBackend(), recording)

    async def story() -> None:
        for request in requests:
            await backend.submit(**request)
        await written(recording)

    asyncio.run(story())
    return recording


def request(rows: int = 1, text: str = SECRET, **more: Any) -> dict[str, Any]:
    texts = object_array([text.encode()] * rows, (rows, 1))
    return {"payload": {"x": np.zeros((rows, 4), np.float32), "text": texts}, "rows": rows, **more}


def lines(folder: Path) -> list[dict[str, Any]]:
    texts = "".join(path.read_text() for path in sorted(folder.glob("*.jsonl")))
    return [json.loads(text) for text in texts.splitlines()]


def test_shape_hashed_tenant_priority_and_deadline_of_a_request_are_recorded(tmp_path: Path) -> None:
    recorded(tmp_path, [request(rows=2, tenant="acme", priority=3, timeout_ns=ms(50))])
    (line,) = lines(tmp_path)
    assert line["inputs"] == {
        "x": {"datatype": "FP32", "shape": [2, 4]},
        "text": {"datatype": "BYTES", "shape": [2, 1], "bytes": 2 * len(SECRET.encode())},
    }
    assert (line["model"], line["priority"], line["deadline_ms"]) == ("m", 3, 50.0)


def test_neither_payloads_nor_names_of_tenants_are_on_disk(tmp_path: Path) -> None:
    recorded(tmp_path, [request(tenant="acme"), request(tenant="acme"), request(tenant="globex"), request()])
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"acme" not in written
    assert b"secret" not in written
    one, again, other, without = [line["tenant"] for line in lines(tmp_path)]
    assert one == again != other
    assert without == ""


def test_replicas_of_a_machine_use_the_same_hash_of_a_tenant_and_other_machines_do_not(tmp_path: Path) -> None:
    for folder, model in (("one", "a"), ("one", "b"), ("two", "a")):
        recorded(tmp_path / folder, [request(tenant="acme")], model=model)
    (first, second), (elsewhere,) = lines(tmp_path / "one"), lines(tmp_path / "two")
    assert first["tenant"] == second["tenant"] != elsewhere["tenant"]
    assert (tmp_path / "one" / "tenants.key").stat().st_mode & 0o077 == 0


def test_the_folder_holds_no_more_than_it_may(tmp_path: Path) -> None:
    for number in range(20):
        recorded(tmp_path, [request()] * 4, most_bytes=8192, model=f"m{number}")
        assert sum(path.stat().st_size for path in tmp_path.glob("*.jsonl")) <= 8192
    assert lines(tmp_path)[-1]["model"] == "m19"


def test_a_long_recording_is_written_in_parts(tmp_path: Path) -> None:
    most_bytes = PARTS * 500
    recording = Recording(tmp_path, model="m", datatypes=DATATYPES, most_bytes=most_bytes)
    first = recording.path
    recorded(tmp_path, [request()] * 4, most_bytes=most_bytes)

    async def story() -> None:
        for _ in range(2):
            recording.note(request()["payload"], "", 0, None)
            await written(recording)

    asyncio.run(story())
    assert recording.path != first


def test_a_folder_that_cannot_be_written_harms_no_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recording = Recording(tmp_path / "there", model="m", datatypes=DATATYPES, most_bytes=1 << 20)
    (tmp_path / "there" / "tenants.key").unlink()
    (tmp_path / "there").rmdir()
    backend = Recorded(EchoBackend(), recording)

    async def story() -> None:
        for _ in range(2):
            await backend.submit(**request())
            await written(recording)

    asyncio.run(story())
    assert [record.message for record in caplog.records if "not recorded" in record.message][1:] == []


def test_a_recording_is_a_scenario_of_the_same_requests_in_the_same_order(tmp_path: Path) -> None:
    asked = [request(rows=rows, tenant=tenant, priority=1) for rows, tenant in ((1, "a"), (3, "b"), (1, "a"), (2, "a"))]
    path = recorded(tmp_path, asked).path
    scenario = load(path)
    descriptions = [TensorDescription("x", "FP32", (-1, 4)), TensorDescription("text", "BYTES", (-1, 1))]
    wire = ScriptedWire(lambda *_: Flight(), {"m": descriptions})
    workload = asyncio.run(prepare(scenario, wire, Address.parse("http://there/v2/models/m")))
    assert len(workload.requests) == 3
    played = [workload.requests[index] for index in workload.order(4, seed=0)]
    assert [one.rows for one in played] == [1, 3, 1, 2]
    assert [one.tenant for one in played] == [line["tenant"] for line in lines(tmp_path)]
    _, message, headers = played[1].request
    assert headers == {"x-tenant": played[1].tenant}
    assert message.parameters == {"priority": 1}
    text = next(tensor for tensor in message.inputs if tensor.name == "text")
    assert sum(map(len, text.data.flat)) == 3 * len(SECRET.encode())
    assert len(schedule(scenario.arrivals, 0, scenario.seconds, 0)) == 4


def test_a_line_that_is_no_recorded_request_is_named(tmp_path: Path) -> None:
    path = tmp_path / "shots.jsonl"
    path.write_text('{"planned_ns": 5}\n')
    with pytest.raises(BadSpec, match=r"shots.jsonl:1 is not a recorded request: KeyError\('at_s'\)"):
        load(path)
