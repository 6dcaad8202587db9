"""The requests and checks of the example clients in Triton's client repository, with models like theirs.

docs/clients.md lists each kind of example with its tests; this file has those that are in no other file.
"""

import asyncio
import queue
from collections.abc import Callable, Iterator
from functools import partial
from uuid import uuid4

import grpc
import numpy as np
import pytest
import tritonclient.grpc as over_grpc
import tritonclient.grpc.aio as over_grpc_aio
import tritonclient.http as over_http
import tritonclient.http.aio as over_http_aio
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException
from tritonclient.utils import shared_memory as shm

from models.reference import NumpyModel, slow_spec
from models.spec import ModelSpec, TensorSpec
from serving.api.shared_memory.regions import Regions
from tests.api.triton_clients import connect
from tests.house import House, house

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # grpcio's and tritonclient's own

A = np.arange(16, dtype=np.int32).reshape(1, 16)
B = np.full((1, 16), -1, np.int32)
SIZE = A.nbytes


def add_sub(spec: ModelSpec) -> NumpyModel:
    """Returns sum and difference, element by element. Texts contain whole numbers in decimal."""

    def compute(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
        if a.dtype != object:
            return a + b, a - b
        a, b = numbers(a), numbers(b)
        return texts(a + b), texts(a - b)

    return NumpyModel(spec, compute)


def numbers(written: np.ndarray) -> np.ndarray:
    return np.array([[int(value or b"0") for value in row] for row in written], np.int64)


def texts(values: np.ndarray) -> np.ndarray:
    return np.array([[str(value).encode() for value in row] for row in values], dtype=object)


def add_sub_spec(name: str, datatype: str) -> ModelSpec:
    inputs, outputs = (
        tuple(TensorSpec(name=f"{side}{index}", datatype=datatype, shape=(-1, 16)) for index in (0, 1))
        for side in ("INPUT", "OUTPUT")
    )
    return ModelSpec(name=name, factory=f"{__name__}:add_sub", inputs=inputs, outputs=outputs)


@pytest.fixture(scope="module", params=["fast", "plain"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    specs = (
        add_sub_spec("simple", "INT32"),
        add_sub_spec("simple_int8", "INT8"),
        add_sub_spec("simple_string", "BYTES"),
        slow_spec(options={"base_ms": 60}),
    )
    regions = Regions(tmp_path_factory.mktemp("regions"))
    with house(*specs, grpc_door=request.param, regions=regions) as running:
        yield running


both_wires = pytest.mark.parametrize("wire", [over_http, over_grpc], ids=["http", "grpc"])

both_aio = pytest.mark.parametrize("wire", [over_http_aio, over_grpc_aio], ids=["http", "grpc"])


def given(wire, datatype: str, *arrays: np.ndarray) -> list[object]:
    return [
        wire.InferInput(f"INPUT{index}", list(array.shape), datatype).set_data_from_numpy(array)
        for index, array in enumerate(arrays)
    ]


def is_right(result, a: np.ndarray = A, b: np.ndarray = B) -> bool:
    return np.array_equal(result.as_numpy("OUTPUT0"), a + b) and np.array_equal(result.as_numpy("OUTPUT1"), a - b)


# -- simple, string, explicit contents --------------------------------------------------------------------------------


@both_wires
def test_sums_and_differences_come_back_with_outputs_named_or_not(served: House, wire) -> None:
    with connect(served, wire) as client:
        for outputs in (None, [wire.InferRequestedOutput("OUTPUT0"), wire.InferRequestedOutput("OUTPUT1")]):
            assert is_right(client.infer("simple", given(wire, "INT32", A, B), outputs=outputs, headers={"test": "1"}))
        with pytest.raises(InferenceServerException, match="Request for unknown model"):
            client.infer("wrong_model_name", given(wire, "INT32", A, B))


def test_a_query_behind_the_path_changes_nothing(served: House) -> None:
    with connect(served, over_http) as client:
        mixed = [over_http.InferInput(f"INPUT{index}", [1, 16], "INT32") for index in (0, 1)]
        mixed[0].set_data_from_numpy(A, binary_data=False)
        mixed[1].set_data_from_numpy(B, binary_data=True)
        query = {"test_1": 1, "test_2": 2}
        for inputs in (mixed, given(over_http, "INT32", A, B)):
            assert is_right(client.infer("simple", inputs, query_params=query))
        assert client.is_model_ready("simple", query_params=query)
        assert len(client.get_inference_statistics("simple", query_params=query)["model_stats"]) == 1


@both_wires
def test_texts_are_added(served: House, wire) -> None:
    with connect(served, wire) as client:
        result = client.infer("simple_string", given(wire, "BYTES", texts(A), texts(B)))
    assert result.as_numpy("OUTPUT0").tolist() == texts(A + B).tolist()
    assert result.as_numpy("OUTPUT1").tolist() == texts(A - B).tolist()


@pytest.mark.parametrize(
    ("model", "datatype", "field", "values"),
    [
        ("simple", "INT32", "int_contents", lambda array: array.ravel().tolist()),
        ("simple_int8", "INT8", "int_contents", lambda array: array.ravel().tolist()),
        ("simple_string", "BYTES", "bytes_contents", lambda array: texts(array).ravel().tolist()),
    ],
)
def test_explicit_contents_are_taken_without_the_clients_library(
    served: House, model: str, datatype: str, field: str, values: Callable[[np.ndarray], list]
) -> None:
    request = service_pb2.ModelInferRequest(model_name=model, id="my request id")
    for index, array in enumerate((A, B)):
        request.inputs.add(name=f"INPUT{index}", datatype=datatype, shape=[1, 16], contents={field: values(array)})
        request.outputs.add(name=f"OUTPUT{index}")
    with grpc.insecure_channel(served.grpc) as channel:
        result = over_grpc.InferResult(service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request))
    assert result.get_response().id == "my request id"
    total, difference = result.as_numpy("OUTPUT0"), result.as_numpy("OUTPUT1")
    if datatype == "BYTES":
        total, difference = numbers(total), numbers(difference)
    assert np.array_equal(total, A + B)
    assert np.array_equal(difference, A - B)


# -- async ------------------------------------------------------------------------------------------------------------


def test_many_requests_are_under_way_with_greenlets_and_with_callbacks(served: House) -> None:
    with connect(served, over_http, concurrency=4) as client:
        running = [client.async_infer("simple", given(over_http, "INT32", A * index, B)) for index in range(8)]
        assert all(is_right(one.get_result(), A * index) for index, one in enumerate(running))
    came: queue.Queue[tuple[int, object]] = queue.Queue()
    with connect(served, over_grpc) as client:
        for index in range(8):
            callback = partial(lambda index, result, error: came.put((index, error or result)), index)
            client.async_infer("simple", given(over_grpc, "INT32", A * index, B), callback)
        answers = dict(came.get(timeout=20) for _ in range(8))
    assert all(is_right(answers[index], A * index) for index in range(8))


@both_aio
def test_the_asyncio_clients_ask_what_the_others_ask(served: House, wire) -> None:
    def named(metadata: object) -> str:
        return str(metadata["name"] if isinstance(metadata, dict) else metadata.name)

    async def story() -> None:
        async with connect(served, wire) as client:
            assert await client.is_server_live(headers={"test": "1", "dummy": "2"})
            assert await client.is_server_ready()
            assert await client.is_model_ready("simple")
            assert named(await client.get_server_metadata()) == "headway"
            assert named(await client.get_model_metadata("simple", headers={"test": "1"})) == "simple"
            config = await client.get_model_config("simple")
            assert named(getattr(config, "config", config)) == "simple"
            with pytest.raises(InferenceServerException, match="Request for unknown model"):
                await client.get_model_metadata("wrong_model_name")
            results = await asyncio.gather(
                *(client.infer("simple", given(wire, "INT32", A * index, B)) for index in range(8))
            )
            assert all(is_right(result, A * index) for index, result in enumerate(results))

    asyncio.run(story())


# -- shared memory ----------------------------------------------------------------------------------------------------


class Shared:
    """Shared memory for four tensors, to be registered as "all": the two inputs, which are set, and the two outputs."""

    def __init__(self) -> None:
        self.key = f"/headway_test_{uuid4().hex}"
        self.handle = shm.create_shared_memory_region("all", self.key, 4 * SIZE)
        shm.set_shared_memory_region(self.handle, [A, B])

    def point(self, inputs: list, outputs: list) -> None:
        for index, tensor in enumerate([*inputs, *outputs]):
            tensor.set_shared_memory("all", SIZE, index * SIZE)

    def is_right(self) -> bool:
        total, difference = (
            shm.get_contents_as_numpy(self.handle, np.int32, (1, 16), offset=place * SIZE) for place in (2, 3)
        )
        return np.array_equal(total, A + B) and np.array_equal(difference, A - B)

    def wipe(self) -> None:
        shm.set_shared_memory_region(self.handle, [np.zeros((2, 16), np.int32)], offset=2 * SIZE)


@pytest.fixture
def shared() -> Iterator[Shared]:
    made = Shared()
    yield made
    shm.destroy_shared_memory_region(made.handle)


def tensors(wire) -> tuple[list, list]:
    """Returns inputs and outputs without data or regions."""
    inputs = [wire.InferInput(f"INPUT{index}", [1, 16], "INT32") for index in (0, 1)]
    return inputs, [wire.InferRequestedOutput(f"OUTPUT{index}") for index in (0, 1)]


@both_wires
def test_the_same_objects_serve_with_shared_memory_and_without(served: House, wire, shared: Shared) -> None:
    with connect(served, wire) as client:
        client.register_system_shared_memory("all", shared.key, 4 * SIZE)
        inputs, outputs = tensors(wire)
        for _ in range(2):
            shared.point(inputs, outputs)
            client.infer("simple", inputs, outputs=outputs)
            assert shared.is_right()
            shared.wipe()
            for tensor, array in zip(inputs, (A, B * 2), strict=True):
                tensor.set_data_from_numpy(array)
            for output in outputs:
                output.unset_shared_memory()
            assert is_right(client.infer("simple", inputs, outputs=outputs), A, B * 2)
            assert not shared.is_right()
        client.unregister_system_shared_memory()


@both_aio
def test_the_asyncio_clients_share_memory(served: House, wire, shared: Shared) -> None:
    async def story() -> None:
        async with connect(served, wire) as client:
            await client.register_system_shared_memory("all", shared.key, 4 * SIZE)
            status = await client.get_system_shared_memory_status()
            assert list(getattr(status, "regions", None) or [status[0]["name"]]) == ["all"]
            inputs, outputs = tensors(wire)
            shared.point(inputs, outputs)
            await client.infer("simple", inputs, outputs=outputs)
            assert shared.is_right()
            await client.unregister_system_shared_memory()
            await client.unregister_cuda_shared_memory()

    asyncio.run(story())


@both_wires
def test_a_gpus_memory_is_refused_in_so_many_words_where_there_is_no_driver(served: House, wire) -> None:
    with connect(served, wire) as client:
        with pytest.raises(InferenceServerException, match="CUDA shared memory needs NVIDIA's driver"):
            client.register_cuda_shared_memory("r", b"aGFuZGxl", 0, 64)
        client.unregister_cuda_shared_memory()


# -- keep-alive, custom arguments -------------------------------------------------------------------------------------

FOREVER_MS = 2**31 - 1


def test_keep_alive_options_and_channel_arguments_are_the_clients_own_business(served: House) -> None:
    options = over_grpc.KeepAliveOptions(
        keepalive_time_ms=FOREVER_MS,
        keepalive_timeout_ms=20_000,
        keepalive_permit_without_calls=False,
        http2_max_pings_without_data=2,
    )
    arguments = [
        ("grpc.max_send_message_length", 1024 * 1024),
        ("grpc.max_receive_message_length", 1024 * 1024),
        ("grpc.keepalive_time_ms", FOREVER_MS),
        ("grpc.http2.max_pings_without_data", 2),
        ("grpc.dns_enable_srv_queries", 1),
    ]
    for more in ({"keepalive_options": options}, {"channel_args": arguments}):
        with connect(served, over_grpc, **more) as client:
            assert is_right(client.infer("simple", given(over_grpc, "INT32", A, B), headers={"test": "1"}))


def test_a_call_outlives_the_pings_of_a_nervous_client(served: House) -> None:
    nervous = over_grpc.KeepAliveOptions(
        keepalive_time_ms=20, keepalive_timeout_ms=10_000, http2_max_pings_without_data=0
    )
    x = over_grpc.InferInput("x", [1, 1], "FP32").set_data_from_numpy(np.ones((1, 1), np.float32))
    with connect(served, over_grpc, keepalive_options=nervous) as client:
        for _ in range(3):
            assert client.infer("slow", [x]).as_numpy("y").tolist() == [[1.0]]
