"""Prepared scenarios: the same seed gives the same bytes in the same order."""

import asyncio
from collections import Counter

import numpy as np
import pytest

from loadtest.scenario import Inputs, Scenario, task
from loadtest.scenario_file import from_table
from loadtest.spec import BadSpec
from loadtest.wires import Address, Flight
from loadtest.wires.http import HttpWire
from loadtest.workload import Workload, infer_inputs, prepare
from serving.protocol.binary_codec import decode_request
from serving.protocol.messages import InferRequest, TensorDescription
from tests.loadtest.scripted import ScriptedWire

INPUTS = [
    TensorDescription("x", "FP32", (-1, 4)),
    TensorDescription("ids", "INT64", (-1, -1)),
    TensorDescription("mask", "BOOL", (-1, 2)),
    TensorDescription("words", "BYTES", (-1, 1)),
]
ADDRESS = Address.parse("http://there/v2/models/m")


def prepared(
    scenario: type[Scenario], seed: int = 0
) -> tuple[Workload, list[tuple[str, InferRequest, dict[str, str]]]]:
    wire = ScriptedWire(lambda *_: Flight(), {"m": INPUTS, "other": INPUTS})
    workload = asyncio.run(prepare(scenario, wire, ADDRESS, seed=seed))
    return workload, [each.request for each in workload.requests]


def table(**tasks: dict[str, object]) -> type[Scenario]:
    return from_table({"tasks": tasks, "variety": 4}, "test")


def test_the_declared_names_and_types_are_sent_with_the_asked_rows_and_length() -> None:
    _, requests = prepared(table(fill={"rows": 3, "length": 7}))
    assert [(tensor.name, tensor.datatype, tensor.shape) for tensor in requests[0][1].inputs] == [
        ("x", "FP32", (3, 4)),
        ("ids", "INT64", (3, 7)),
        ("mask", "BOOL", (3, 2)),
        ("words", "BYTES", (3, 1)),
    ]


def test_sizes_follow_the_stated_distribution() -> None:
    _, requests = prepared(from_table({"variety": 64, "tasks": {"a": {"rows": "choice(1, 8)", "words": 5}}}, "test"))
    assert {request.inputs[0].shape[0] for _, request, _ in requests} == {1, 8}
    assert all(len(request.inputs[3].data.flat[0].split()) == 5 for _, request, _ in requests)


def test_equal_seeds_give_equal_requests_and_they_differ_from_each_other() -> None:
    first, again, other = (
        [request.inputs[0].data.tobytes() for _, request, _ in prepared(table(fill={}), seed)[1]] for seed in (1, 1, 2)
    )
    assert first == again
    assert not set(first) & set(other)
    assert len(set(first)) == 4


def test_the_bytes_of_a_task_do_not_change_when_another_is_added() -> None:
    alone = prepared(table(a={}))[1]
    beside = prepared(table(b={}, a={}))[1]
    assert alone[0][1].inputs[0].data.tobytes() == beside[4][1].inputs[0].data.tobytes()


def test_requests_are_taken_as_often_as_the_weights_of_tasks_and_tenants_say() -> None:
    scenario = from_table({"tenants": {"shop": 3, "crawler": 1}, "tasks": {"often": {"weight": 4}, "rare": {}}}, "test")
    workload, requests = prepared(scenario)
    order = workload.order(20_000, seed=1)
    counts = Counter((workload.requests[index].task, workload.requests[index].tenant) for index in order)
    assert counts["often", "shop"] == pytest.approx(20_000 * 0.8 * 0.75, rel=0.05)
    assert counts["rare", "crawler"] == pytest.approx(20_000 * 0.2 * 0.25, rel=0.1)
    assert order == workload.order(20_000, seed=1)
    assert {headers["x-tenant"] for _, _, headers in requests} == {"shop", "crawler"}


def test_deadline_priority_and_model_of_a_task_travel_with_its_requests() -> None:
    workload, requests = prepared(table(a={"deadline_ms": 200, "priority": 2, "model": "other"}))
    model, request, _ = requests[0]
    assert (model, request.parameters) == ("other", {"timeout": 200_000, "priority": 2})
    assert workload.requests[0].deadline_ns == 200_000_000


def test_headers_of_a_scenario_travel_with_every_request() -> None:
    _, requests = prepared(from_table({"headers": {"authorization": "Bearer x"}, "tenants": {"a": 1}}, "test"))
    assert requests[0][2] == {"authorization": "Bearer x", "x-tenant": "a"}


def test_a_class_is_a_scenario_too() -> None:
    class Shop(Scenario):
        variety = 2

        @task(3, deadline_ms=50)
        def ask(self) -> Inputs:
            return {"words": [self.sentence(3)], "x": [[1, 2, 3, 4]]}

    workload, requests = prepared(Shop)
    assert [(tensor.name, tensor.datatype, tensor.shape) for tensor in requests[0][1].inputs] == [
        ("words", "BYTES", (1, 1)),
        ("x", "FP32", (1, 4)),
    ]
    assert (workload.requests[0].task, sum(workload.weights)) == ("ask", 3)


def test_binary_and_json_bodies_hold_the_same_tensors() -> None:
    tensors = infer_inputs({"x": [1.0, 2.0, 3.0, 4.0]}, INPUTS[:1], "a")
    request = InferRequest(tensors, parameters={"priority": 1})
    bodies = [HttpWire(ADDRESS, form).prepare("m", request, {"x-tenant": "shop"}) for form in ("binary", "json")]
    for body, binary in zip(bodies, (True, False), strict=True):
        head, _, rest = body.partition(b"\r\n\r\n")
        lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        assert lines["x-tenant"] == "shop"
        assert lines["content-type"] == ("application/octet-stream" if binary else "application/json")
        length = lines.get("inference-header-content-length")
        read = decode_request(rest, int(length) if length else None)
        assert np.array_equal(read.inputs[0].data, [[1, 2, 3, 4]])
        assert read.parameters["priority"] == 1


def test_raw_is_the_bytes_of_the_only_input_and_the_path_as_it_stands() -> None:
    wire = HttpWire(Address.parse("http://there/mlp"), "raw")
    (tensor,) = infer_inputs({"image": b"jpeg"}, [], "a")
    body = wire.prepare("", InferRequest((tensor,)), {})
    assert body.startswith(b"POST /mlp HTTP/1.1\r\n")
    assert body.endswith(b"\r\n\r\njpeg")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"y": [1]}, "tasks.a: the model has no input 'y'; it has x, ids, mask, words"),
        ({}, "tasks.a: expected the inputs of one request by name"),
        ([1, 2], "tasks.a: expected the inputs of one request by name"),
    ],
)
def test_inputs_that_are_none_of_the_model_are_refused(inputs: Inputs, message: str) -> None:
    with pytest.raises(BadSpec, match=message):
        infer_inputs(inputs, INPUTS, "a")


def test_a_task_without_a_model_is_refused() -> None:
    with pytest.raises(BadSpec, match=r"tasks.a.model: neither the task nor the scenario nor the URL names a model"):
        asyncio.run(prepare(table(a={}), ScriptedWire(lambda *_: Flight()), Address.parse("http://there")))


def test_weights_that_are_all_zero_are_refused() -> None:
    with pytest.raises(BadSpec, match="weight: "):
        prepared(table(a={"weight": 0}))
