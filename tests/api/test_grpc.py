"""Tests the gRPC service on both doors with an unmodified tritonclient.grpc."""

import asyncio
import threading
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
import tritonclient.grpc as client
import tritonclient.grpc.aio as aio
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from serving.core.errors import InvalidInput, LaneLost, ModelError, OutOfMemory
from serving.core.outcome import Cancelled, Completed, Expired, Failed, Reason, Rejected
from serving.protocol.pb import HEALTH, SERVICE, message, pool
from serving.testing.backend import QUEUE_NS, TIMINGS, EchoBackend
from tests.api.conftest import model
from tests.api.grpc_serving import MAX_MESSAGE_BYTES, Served, grpc_serving
from tests.api.test_tritonclient import VALUES

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # grpcio's and tritonclient's own


class HoldingBackend(EchoBackend):
    """A backend that lets other threads wait until requests have arrived or were withdrawn."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()

    def until(self, *, arrived: int, withdrawn: int = 0) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: (len(self.submissions), self.cancelled) == (arrived, withdrawn), 10)

    async def _outcome(self, payload, rows):
        with self._changed:
            self._changed.notify()
        try:
            return await super()._outcome(payload, rows)
        finally:
            with self._changed:
                self._changed.notify()


@pytest.fixture(scope="module")
def one_backend() -> HoldingBackend:
    return HoldingBackend()


@pytest.fixture
def backend(one_backend: HoldingBackend) -> HoldingBackend:
    one_backend.ready = True
    one_backend.cancelled = 0
    one_backend.submissions.clear()
    return one_backend


@pytest.fixture(scope="module", params=["plain", "fast"])
def server(one_backend: HoldingBackend, request: pytest.FixtureRequest) -> Iterator[Served]:
    every = [model(f"echo_{datatype}", ("x", datatype, (-1, -1)), backend=one_backend) for datatype in VALUES]
    two = model(
        "two", ("a", "FP32", (-1, 2)), ("b", "INT64", (-1, 1)), backend=one_backend,
        labels={"a": ("cat", "dog")}, config=lambda: {"max_batch_rows": 32, "latency_budget_ms": 50.0}, description="d",
    )  # fmt: skip
    with grpc_serving([*every, two], door=request.param, tenant_header="X-Tenant") as served:
        yield served


@pytest.fixture
def triton(server: Served, backend: HoldingBackend) -> Iterator[client.InferenceServerClient]:
    with client.InferenceServerClient(server.address) as connected:
        yield connected


@pytest.fixture
def stub(server: Served, backend: HoldingBackend) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
    with grpc.insecure_channel(server.address) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def infer_input(name: str, array: np.ndarray, datatype: str) -> client.InferInput:
    return client.InferInput(name, list(array.shape), datatype).set_data_from_numpy(array)


def two_inputs(rows: int = 1, first: float = 0) -> list[client.InferInput]:
    a = first + np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
    return [infer_input("a", a, "FP32"), infer_input("b", np.ones((rows, 1), np.int64), "INT64")]


@pytest.mark.parametrize("datatype", VALUES)
def test_every_datatype_comes_back(triton, datatype: str) -> None:
    array = VALUES[datatype]
    for _ in range(2):  # the second time with the cached plan
        result = triton.infer(f"echo_{datatype}", [infer_input("x", array, datatype)], request_id="7")
        returned = result.as_numpy("x")
        assert returned.tobytes() == array.tobytes() or returned.tolist() == array.tolist()
        assert (result.get_response().id, result.get_output("x").datatype) == ("7", datatype)


def test_typed_contents_are_taken_and_answered_raw(stub) -> None:
    request = service_pb2.ModelInferRequest(model_name="echo_INT32")
    request.inputs.add(name="x", datatype="INT32", shape=[1, 3], contents={"int_contents": [1, -2, 3]})
    answer = stub.ModelInfer(request)
    assert answer.outputs[0].shape == [1, 3]
    assert np.frombuffer(answer.raw_output_contents[0], np.int32).tolist() == [1, -2, 3]
    assert not answer.outputs[0].HasField("contents")


def test_outputs_come_as_asked_for_and_classification_has_labels(triton) -> None:
    wanted = [client.InferRequestedOutput("b"), client.InferRequestedOutput("a", class_count=1)]
    result = triton.infer("two", two_inputs(rows=2), outputs=wanted)
    assert [output.name for output in result.get_response().outputs] == ["b", "a"]
    assert result.as_numpy("a").ravel().tolist() == [b"1.000000:1:dog", b"3.000000:1:dog"]


def test_priority_timeout_and_tenant_reach_the_backend(triton, backend) -> None:
    triton.infer("two", two_inputs(rows=3), priority=2, timeout=1500, headers={"x-tenant": "blue"})
    (submission,) = backend.submissions
    assert (submission.priority, submission.timeout_ns, submission.rows, submission.tenant) == (2, 1_500_000, 3, "blue")


def test_the_clients_deadline_reaches_the_backend_and_the_shorter_limit_counts(triton, backend) -> None:
    triton.infer("two", two_inputs(), client_timeout=30)
    triton.infer("two", two_inputs(), client_timeout=30, timeout=1000)
    first, second = (submission.timeout_ns for submission in backend.submissions)
    assert 29_000_000_000 < first < 31_000_000_000
    assert second == 1_000_000


@pytest.mark.parametrize("coding", [None, "gzip", "deflate"])
def test_messages_may_be_large_and_compressed(triton, coding) -> None:
    array = np.zeros((1, 2_000_000), np.float32)  # 8 MB: gRPC itself stops at 4
    result = triton.infer("echo_FP32", [infer_input("x", array, "FP32")], compression_algorithm=coding)
    assert result.as_numpy("x").shape == (1, 2_000_000)


def test_a_message_over_the_limit_is_refused_by_name(triton) -> None:
    array = np.zeros((1, MAX_MESSAGE_BYTES // 4), np.float32)
    with pytest.raises(InferenceServerException, match="larger than") as caught:
        triton.infer("echo_FP32", [infer_input("x", array, "FP32")])
    assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"


@pytest.mark.parametrize(
    ("outcome", "code", "text"),
    [
        (Rejected(Reason.QUEUE_FULL, 1_500_000_000), "UNAVAILABLE", "request refused: the queue is full"),
        (Rejected(Reason.TOO_LARGE, 0, 8), "INVALID_ARGUMENT", "has more rows than the largest batch, 8"),
        (Expired(waited_ns=12_300_000), "DEADLINE_EXCEEDED", "the deadline passed after 12.3 ms in the queue"),
        (Cancelled(), "CANCELLED", "request cancelled"),
        (Failed(InvalidInput("no JPEG")), "INVALID_ARGUMENT", "no JPEG"),
        (Failed(ModelError("division by zero")), "INTERNAL", "division by zero"),
        (Failed(LaneLost("lane 0 is gone")), "UNAVAILABLE", "lane 0 is gone"),
        (Failed(OutOfMemory("no room")), "RESOURCE_EXHAUSTED", "no room"),
        (
            Completed({"a": np.ones((1, 2), np.float32)}, QUEUE_NS, TIMINGS),
            "INTERNAL",
            "the model returned no output 'b'",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_each_outcome_has_its_code(triton, backend, outcome, code: str, text: str) -> None:
    backend.script = [outcome]
    with pytest.raises(InferenceServerException, match=text) as caught:
        triton.infer("two", two_inputs())
    assert caught.value.status() == f"StatusCode.{code}"
    assert triton.infer("two", two_inputs()).as_numpy("b").tolist() == [[1]]


@pytest.mark.parametrize(
    ("needs_ns", "timeout_s", "code"),
    [
        (2_000_000_000, 1.0, "DEADLINE_EXCEEDED"),
        (900_000_000, 1.0, "DEADLINE_EXCEEDED"),  # less the time to return the answer
        (100_000_000, 1.0, "UNAVAILABLE"),  # the model's own budget is shorter: a retry may succeed
        (2_000_000_000, None, "UNAVAILABLE"),
    ],
)
def test_a_deadline_that_cannot_be_met_is_no_reason_to_try_again(stub, backend, needs_ns, timeout_s, code: str) -> None:
    backend.script = [Rejected(Reason.DEADLINE_HOPELESS, 1_500_000_000, needs_ns=needs_ns)]
    request = service_pb2.ModelInferRequest(model_name="echo_INT32")
    request.inputs.add(name="x", datatype="INT32", shape=[1, 1], contents={"int_contents": [1]})
    with pytest.raises(grpc.RpcError, match="the deadline cannot be met") as caught:
        stub.ModelInfer(request, timeout=timeout_s)
    assert caught.value.code().name == code
    trailers = [key for key, _ in caught.value.trailing_metadata()]
    assert ("grpc-retry-pushback-ms" in trailers) == (code == "UNAVAILABLE")


def test_a_refused_client_learns_when_to_retry(stub, backend) -> None:
    backend.script = [Rejected(Reason.QUEUE_FULL, 1_500_000_000)]
    request = service_pb2.ModelInferRequest(model_name="echo_INT32")
    request.inputs.add(name="x", datatype="INT32", shape=[1, 1], contents={"int_contents": [1]})
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request)
    assert ("grpc-retry-pushback-ms", "1500") in [tuple(pair) for pair in caught.value.trailing_metadata()]


def test_an_unexpected_error_is_an_internal_error_without_details(caplog) -> None:
    backend = EchoBackend(answer=lambda inputs: {"x": 5})  # type: ignore[dict-item,return-value]
    with (
        grpc_serving([model("m", ("x", "FP32", (-1, -1)), backend=backend)]) as served,
        client.InferenceServerClient(served.address) as triton,
        pytest.raises(InferenceServerException, match=r"INTERNAL. internal error"),
    ):
        triton.infer("m", [infer_input("x", np.ones((1, 1), np.float32), "FP32")])
    assert "AttributeError" in caplog.text


@pytest.mark.parametrize(
    ("name", "version", "inputs", "code", "text"),
    [
        ("none", "", two_inputs(), "NOT_FOUND", "Request for unknown model: 'none' is not found"),
        ("two", "9", two_inputs(), "NOT_FOUND", "Request for unknown model: 'two' version 9 is not found"),
        ("two", "", two_inputs()[:1], "INVALID_ARGUMENT", "inputs: missing 'b'"),
        ("two", "", [*two_inputs(), *two_inputs()], "INVALID_ARGUMENT", r"inputs\[2\]: input 'a' is given twice"),
        ("echo_FP32", "", two_inputs()[:1], "INVALID_ARGUMENT", r"inputs\[0\]: unknown input 'a', the model takes 'x'"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_field(triton, backend, name, version, inputs, code, text) -> None:
    with pytest.raises(InferenceServerException, match=text) as caught:
        triton.infer(name, inputs, model_version=version)
    assert caught.value.status() == f"StatusCode.{code}"
    assert backend.submissions == []


def test_bytes_that_are_no_message_are_refused(server, backend) -> None:
    with grpc.insecure_channel(server.address) as channel:
        for method in ("ModelInfer", "ModelConfig"):
            with pytest.raises(grpc.RpcError, match="not a Model") as caught:
                channel.unary_unary(f"/{SERVICE}/{method}")(b"\xff\xff\xff")
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("id", [5, 2**63 - 1, "a"])
def test_a_model_without_state_ignores_sequences_as_any_parameter_that_it_does_not_know(triton, id) -> None:
    result = triton.infer("two", two_inputs(), sequence_id=id, sequence_start=True, sequence_end=True)
    assert result.as_numpy("a").tolist() == triton.infer("two", two_inputs()).as_numpy("a").tolist()


@pytest.mark.parametrize("most", [2**63, 2**64 - 1])
def test_priorities_are_unsigned_numbers_of_64_bits(triton, backend, most: int) -> None:
    triton.infer("two", two_inputs(), priority=most)
    assert backend.submissions[-1].priority == most


def test_server_and_models_tell_of_themselves(triton, backend) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("two", "1")
    assert not triton.is_model_ready("none")
    assert triton.get_server_metadata().name == "headway"
    assert "statistics" in triton.get_server_metadata().extensions
    metadata = triton.get_model_metadata("two")
    assert (list(metadata.versions), list(metadata.inputs[0].shape)) == (["1"], [-1, 2])
    backend.ready = False
    assert triton.is_server_live()
    assert not triton.is_server_ready()
    assert not triton.is_model_ready("two")


def test_the_configuration_has_what_perf_analyzer_reads_and_our_settings(triton) -> None:
    config = triton.get_model_config("two").config
    assert (config.max_batch_size, config.model_transaction_policy.decoupled) == (32, False)
    assert config.HasField("dynamic_batching")
    assert (config.input[1].data_type, list(config.input[0].dims)) == (9, [2])
    assert config.parameters["latency_budget_ms"].string_value == "50.0"


def test_statistics_grow_with_every_request(triton) -> None:
    triton.infer("two", two_inputs(rows=2))
    first = triton.get_inference_statistics("two").model_stats[0]
    triton.infer("two", two_inputs(rows=2))
    second = triton.get_inference_statistics("two", "1").model_stats[0]
    assert second.inference_count - first.inference_count == 2
    assert second.inference_stats.success.count - first.inference_stats.success.count == 1
    assert len(triton.get_inference_statistics().model_stats) == len(VALUES) + 1


def test_the_repository_index_lists_the_models(triton) -> None:
    entries = triton.get_model_repository_index().models
    assert ("two", "1", "READY") in [(entry.name, entry.version, entry.state) for entry in entries]


def test_what_is_left_out_says_so_and_unregistering_nothing_is_no_error(triton) -> None:
    refused = (
        lambda: triton.load_model("two"),
        lambda: triton.unload_model("two"),
        lambda: triton.register_system_shared_memory("r", "/r", 4),
        triton.get_log_settings,
        triton.get_trace_settings,
    )
    for call in refused:
        with pytest.raises(InferenceServerException, match="this server") as caught:
            call()
        assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
    triton.unregister_system_shared_memory()
    triton.unregister_cuda_shared_memory()
    assert not triton.get_system_shared_memory_status().regions
    assert not triton.get_cuda_shared_memory_status().regions


def test_a_client_that_cancels_withdraws_its_waiting_request(server, triton, backend) -> None:
    backend.hold()
    errors: list[object] = []
    running = triton.async_infer("two", two_inputs(), callback=lambda result, error: errors.append(error))
    backend.until(arrived=1)
    running.cancel()
    backend.until(arrived=1, withdrawn=1)
    server.loop.call_soon_threadsafe(backend.release)
    assert triton.infer("two", two_inputs()).as_numpy("b").tolist() == [[1]]
    assert (backend.cancelled, backend.waiting) == (1, 0)


def test_a_deadline_that_passes_withdraws_the_waiting_request(server, triton, backend) -> None:
    backend.hold()
    with pytest.raises(InferenceServerException, match="Deadline Exceeded"):
        triton.infer("two", two_inputs(), client_timeout=0.2)
    backend.until(arrived=1, withdrawn=1)
    server.loop.call_soon_threadsafe(backend.release)


class Streamed:
    """A callback of a stream that collects answers and errors."""

    def __init__(self) -> None:
        self.answers: list[tuple[client.InferResult | None, InferenceServerException | None]] = []
        self._grown = threading.Condition()

    def __call__(self, result, error) -> None:
        with self._grown:
            self.answers.append((result, error))
            self._grown.notify()

    def wait_for(self, count: int) -> None:
        with self._grown:
            assert self._grown.wait_for(lambda: len(self.answers) >= count, 10)


def test_a_stream_answers_in_order_with_its_errors_in_it(triton, backend) -> None:
    backend.script = [Failed(ModelError("bad luck"))]
    streamed = Streamed()
    triton.start_stream(streamed)
    triton.async_stream_infer("two", two_inputs(), request_id="0")
    streamed.wait_for(1)
    for index in range(1, 6):
        triton.async_stream_infer("two" if index != 3 else "none", two_inputs(first=index), request_id=str(index))
    streamed.wait_for(6)
    triton.stop_stream()
    results, errors = zip(*streamed.answers, strict=True)
    assert [str(error)[:8] if error else "" for error in errors] == ["bad luck", "", "", "Request ", "", ""]
    answered = [result for result in results if result]
    assert [result.get_response().id for result in answered] == ["1", "2", "4", "5"]
    assert [result.as_numpy("a")[0, 0] for result in answered] == [1.0, 2.0, 4.0, 5.0]
    for result in answered:
        assert result.get_response().parameters["triton_final_response"].bool_param is True


def test_a_stream_may_carry_far_more_than_one_window(triton) -> None:
    streamed = Streamed()
    triton.start_stream(streamed)
    for _ in range(12):  # 3 MB each, and 16 MB is the largest message
        triton.async_stream_infer("echo_FP32", [infer_input("x", np.zeros((1, 750_000), np.float32), "FP32")])
    streamed.wait_for(12)
    triton.stop_stream()
    assert [error for _, error in streamed.answers] == [None] * 12


def test_a_stream_submits_ahead_so_that_its_requests_can_share_a_batch(server, triton, backend) -> None:
    backend.hold()
    streamed = Streamed()
    triton.start_stream(streamed)
    for index in range(3):
        triton.async_stream_infer("two", two_inputs(), request_id=str(index))
    backend.until(arrived=3)
    assert streamed.answers == []
    server.loop.call_soon_threadsafe(backend.release)
    streamed.wait_for(3)
    triton.stop_stream()


def test_a_stream_that_is_cancelled_withdraws_all_that_waits(server, triton, backend) -> None:
    backend.hold()
    triton.start_stream(Streamed())
    for _ in range(3):
        triton.async_stream_infer("two", two_inputs())
    backend.until(arrived=3)
    triton.stop_stream(cancel_requests=True)
    backend.until(arrived=3, withdrawn=3)
    server.loop.call_soon_threadsafe(backend.release)


def test_a_client_that_asks_for_it_gets_a_streams_error_as_its_status(stub, backend) -> None:
    request = service_pb2.ModelInferRequest(model_name="none")
    request.inputs.add(name="x", datatype="INT32", shape=[1, 1], contents={"int_contents": [1]})
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.ModelStreamInfer(iter([request]), metadata=[("triton_grpc_error", "true")]))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_the_asyncio_client_works_too(server, backend) -> None:
    async def requests():
        for index in range(3):
            yield {"model_name": "two", "inputs": two_inputs(first=index), "request_id": str(index)}

    async def run() -> None:
        async with aio.InferenceServerClient(server.address) as triton:
            results = await asyncio.gather(*(triton.infer("two", two_inputs(), request_id=str(i)) for i in range(20)))
            assert [result.get_response().id for result in results] == [str(i) for i in range(20)]
            assert (await triton.get_model_config("two")).config.name == "two"
            with pytest.raises(InferenceServerException, match="unknown input 'c'"):
                await triton.infer("two", [infer_input("c", np.ones((1, 1), np.float32), "FP32")])
            streamed = [result.as_numpy("a")[0, 0] async for result, _ in triton.stream_infer(requests())]
            assert streamed == [0.0, 1.0, 2.0]

    asyncio.run(run())


def test_health_follows_the_server_and_each_model(server, backend) -> None:
    request = message("grpc.health.v1.HealthCheckRequest")
    response = message("grpc.health.v1.HealthCheckResponse")
    with grpc.insecure_channel(server.address) as channel:
        check = channel.unary_unary(f"/{HEALTH}/Check")

        def status(service: str) -> int:
            return response.FromString(check(request(service=service).SerializeToString())).status

        assert [status(service) for service in ("", SERVICE, "two")] == [1, 1, 1]
        watch = channel.unary_stream(f"/{HEALTH}/Watch")(request(service="two").SerializeToString())
        assert response.FromString(next(watch)).status == 1
        backend.ready = False
        assert [status(service) for service in ("", SERVICE, "two")] == [2, 2, 2]
        assert response.FromString(next(watch)).status == 2
        watch.cancel()
        with pytest.raises(grpc.RpcError) as caught:
            status("none")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_names_the_services_and_gives_their_files() -> None:
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    with grpc_serving([]) as served, grpc.insecure_channel(served.address) as channel:
        ask = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        wanted = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
        ]
        services, file = ask(iter(wanted))
    assert {SERVICE, HEALTH} <= {service.name for service in services.list_services_response.service}
    expected = pool().FindFileByName("open_inference.proto").serialized_pb
    assert list(file.file_descriptor_response.file_descriptor_proto) == [expected]
