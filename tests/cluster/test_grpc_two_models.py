"""Tests streams that name several models: each message is answered by its model, whichever replica the stream
reached."""

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest

from serving.api.entry import ModelEntry
from serving.api.grpc.connection import GrpcListener
from serving.api.grpc.service import INFER, STREAM, GrpcService
from serving.api.operations import Operations
from serving.cluster.front.grpc_relay import GrpcRelay
from serving.protocol.pb import message
from serving.testing.backend import EchoBackend
from tests.api.conftest import model
from tests.api.test_grpc_connection import MAX_MESSAGE_BYTES
from tests.api.test_witness import Generator

TENSOR = ("x", "FP32", (-1, 2))
STRICT = [("triton_grpc_error", "true")]


def request(name: str, id: str, value: float = 1.0, **parameters: bool) -> bytes:
    built = message("ModelInferRequest")(model_name=name, id=id)
    built.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    built.raw_input_contents.append(np.full((1, 2), value, np.float32).tobytes())
    for key, flag in parameters.items():
        built.parameters[key].bool_param = flag
    encoded: bytes = built.SerializeToString()
    return encoded


def replica(served: Any, port: int) -> GrpcListener:
    """Returns a replica that serves its own model and relays to the other replica, as it would through HAProxy."""

    async def own() -> list[ModelEntry]:
        return [ModelEntry(name=served.name, version="1", state="READY")]

    service = GrpcService(
        [served], Operations(own), tenant_header="x-tenant", relay=GrpcRelay(f"127.0.0.1:{port}", "x-tenant")
    )
    return GrpcListener(service, max_message_bytes=MAX_MESSAGE_BYTES)


def two_models(story: Callable[[SimpleNamespace], Coroutine[object, object, None]]) -> Callable[[], None]:
    """Makes a test of a story that gets a client of the replica of `here`. Other replicas serve `far` and the
    generating model `words`."""

    async def run() -> None:
        at = SimpleNamespace(here=EchoBackend(), far=EchoBackend(), words=Generator())

        async def both() -> list[ModelEntry]:
            return [ModelEntry(name=name, version="1", state="READY") for name in ("far", "words")]

        served = [
            model("far", TENSOR, backend=at.far),
            model("words", TENSOR, backend=at.words, generator=at.words),
        ]
        far = GrpcListener(GrpcService(served, Operations(both), tenant_header="x-tenant"), max_message_bytes=10**6)
        at.listener = far
        port = await far.open("127.0.0.1", 0)
        here = replica(model("here", TENSOR, backend=at.here), port)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{await here.open('127.0.0.1', 0)}") as channel:
            at.channel = channel
            await story(at)
        await here.close()
        await far.close()

    def test() -> None:
        asyncio.run(run())

    test.__name__, test.__doc__ = story.__name__, story.__doc__
    return test


async def stream(at: SimpleNamespace, requests: list[bytes], **more: Any) -> list[tuple[str, str, str, bool]]:
    """Returns (model, id, error, whether it is the last of its request) of each answer."""
    answers = []
    async for answer in at.channel.stream_stream(STREAM)(iter(requests), timeout=20, **more):
        told = message("ModelStreamInferResponse").FromString(answer)
        found = told.infer_response
        is_last = found.parameters["triton_final_response"].bool_param
        answers.append((found.model_name, found.id, told.error_message, is_last))
    return answers


@two_models
async def test_every_message_is_answered_by_the_model_it_names_and_in_its_turn(at: SimpleNamespace) -> None:
    names = ["here", "far", "far", "here", "far", "here"]
    answers = await stream(at, [request(name, str(index)) for index, name in enumerate(names)])
    assert answers == [(name, str(index), "", True) for index, name in enumerate(names)]
    assert (len(at.here.submissions), len(at.far.submissions)) == (3, 3)


@two_models
async def test_the_tenant_and_what_is_left_of_the_deadline_go_along(at: SimpleNamespace) -> None:
    await stream(at, [request("here", "1"), request("far", "2")], metadata=[("x-tenant", "blue")])
    (submission,) = at.far.submissions
    assert submission.tenant == "blue"
    assert 0 < submission.timeout_ns < 21_000_000_000  # gRPC rounds the remaining 20 s up


@two_models
async def test_answers_of_a_model_that_generates_elsewhere_come_with_their_end_where_it_was_asked(at) -> None:
    wanting = request("words", "3", triton_enable_empty_final_response=True)
    answers = await stream(at, [request("here", "1"), request("words", "2"), wanting, request("here", "4")])
    ends = {asked: [is_last for _, id, _, is_last in answers if id == asked] for asked in ("2", "3")}
    assert ends == {"2": [False, False], "3": [False, False, True]}
    assert [answer for answer in answers if answer[0] == "here"] == [("here", "1", "", True), ("here", "4", "", True)]


@two_models
async def test_a_failure_in_another_replica_is_an_answer_of_the_stream_which_goes_on(at: SimpleNamespace) -> None:
    wrong = message("ModelInferRequest")(model_name="far", id="2").SerializeToString()
    sent = [request("here", "1"), wrong, request("words", "3", -1.0), request("far", "4"), request("nobody", "5")]
    answers = [answer for answer in await stream(at, sent) if answer[3]]
    assert [(id, error[:24]) for _, id, error, _ in answers] == [
        ("1", ""), ("2", "inputs: at least one inp"), ("3", "negative"), ("4", ""), ("5", "Request for unknown mode"),
    ]  # fmt: skip


@two_models
async def test_a_client_that_asks_for_it_gets_a_failure_elsewhere_as_the_streams_status(at: SimpleNamespace) -> None:
    wrong = message("ModelInferRequest")(model_name="far", id="2").SerializeToString()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream(at, [request("here", "1"), wrong], metadata=STRICT)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@two_models
async def test_a_replica_that_goes_fails_its_requests_and_the_others_are_answered(at: SimpleNamespace) -> None:
    at.far.hold()
    call = at.channel.stream_stream(STREAM)(timeout=20)
    for name in ("far", "here"):
        await call.write(request(name, name))
    while not at.far.waiting:
        await asyncio.sleep(0)
    for connection in list(at.listener._connections):
        connection._transport.abort()
    told = [message("ModelStreamInferResponse").FromString(await call.read()) for _ in range(2)]
    assert [bool(one.error_message) for one in told] == [True, False]
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert at.far.waiting == 0


@two_models
async def test_a_client_that_leaves_withdraws_its_requests_everywhere(at: SimpleNamespace) -> None:
    at.far.hold()
    call = at.channel.stream_stream(STREAM)(timeout=20)
    await call.write(request("far", "1"))
    while not at.far.waiting:
        await asyncio.sleep(0)
    call.cancel()
    while at.far.waiting:
        await asyncio.sleep(0)
    assert at.far.cancelled == 1


@two_models
async def test_a_single_call_for_another_model_finds_it_too_and_one_that_was_passed_on_goes_no_further(at) -> None:
    answer = await at.channel.unary_unary(INFER)(request("far", "7"), timeout=20)
    assert message("ModelInferResponse").FromString(answer).model_name == "far"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await at.channel.unary_unary(INFER)(request("far", "8"), timeout=20, metadata=[("x-headway-relayed", "1")])
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    for name in ("", "no such\nname", "../far"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await at.channel.unary_unary(INFER)(request(name, "9"), timeout=20)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
