"""The unmodified tritonclient with the applications: its requests are understood, and it can read all answers."""

import asyncio

import ml_dtypes
import numpy as np
import pytest
import tritonclient.http as client
import tritonclient.http.aio as aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from serving.testing.backend import EchoBackend
from tests.api.conftest import Server, model

VALUES = {
    "BOOL": np.array([[True, False]]),
    "UINT8": np.array([[0, 255]], np.uint8),
    "UINT16": np.array([[0, 65535]], np.uint16),
    "UINT32": np.array([[0, 2**32 - 1]], np.uint32),
    "UINT64": np.array([[0, 2**64 - 1]], np.uint64),
    "INT8": np.array([[-128, 127]], np.int8),
    "INT16": np.array([[-(2**15), 2**15 - 1]], np.int16),
    "INT32": np.array([[-(2**31), 2**31 - 1]], np.int32),
    "INT64": np.array([[-(2**63), 2**63 - 1]], np.int64),
    "FP16": np.array([[0.5, -1.5]], np.float16),
    "BF16": np.array([[0.5, -1.5]], ml_dtypes.bfloat16),
    "FP32": np.array([[0.1, np.inf]], np.float32),
    "FP64": np.array([[0.1, np.nan]], np.float64),
    "BYTES": np.array([["é".encode(), b""]], dtype=object),
}


@pytest.fixture(scope="module")
def one_backend() -> EchoBackend:
    return EchoBackend()


@pytest.fixture
def backend(one_backend: EchoBackend) -> EchoBackend:
    one_backend.ready = True
    one_backend.submissions.clear()
    return one_backend


@pytest.fixture(scope="module")
def server(serve_module, one_backend: EchoBackend) -> Server:
    every = [model(f"echo_{datatype}", ("x", datatype, (-1, -1)), backend=one_backend) for datatype in VALUES]
    two = model(
        "two", ("a", "FP32", (-1, 2)), ("b", "INT64", (-1, 1)), backend=one_backend,
        labels={"a": ("cat", "dog")}, config=lambda: {"max_batch_rows": 32, "latency_budget_ms": 50.0}, description="d",
    )  # fmt: skip
    return serve_module([*every, two], tenant_header="X-Tenant")


@pytest.fixture
def triton(server: Server, backend: EchoBackend):
    with client.InferenceServerClient(server.address) as connected:
        yield connected


def infer_input(name: str, array: np.ndarray, binary: bool = True) -> client.InferInput:
    given = client.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    return given.set_data_from_numpy(array, binary_data=binary)


def two_inputs(rows: int = 1, binary: bool = True) -> list[client.InferInput]:
    a = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
    return [infer_input("a", a, binary), infer_input("b", np.ones((rows, 1), np.int64), binary)]


@pytest.mark.parametrize("datatype", VALUES)
def test_every_datatype_comes_back_from_binary(triton, datatype: str) -> None:
    array = VALUES[datatype]
    for _ in range(2):  # the second time from the kept plan
        result = triton.infer(f"echo_{datatype}", [infer_input("x", array)])
        assert result.as_numpy("x").tobytes() == array.tobytes() or result.as_numpy("x").tolist() == array.tolist()
        assert result.get_output("x")["datatype"] == datatype


@pytest.mark.parametrize("datatype", [name for name in VALUES if name not in ("FP16", "BF16")])
def test_every_datatype_that_json_can_carry_comes_back_from_json(triton, datatype: str) -> None:
    array = VALUES[datatype]
    wanted = client.InferRequestedOutput("x", binary_data=False)
    result = triton.infer(f"echo_{datatype}", [infer_input("x", array, binary=False)], outputs=[wanted])
    assert "data" in result.get_output("x")
    returned = result.as_numpy("x")
    if datatype == "BYTES":
        assert returned.tolist() == [["é", ""]]
    else:
        np.testing.assert_array_equal(returned, array)


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_floats_are_refused_as_json_before_anything_is_computed(triton, backend, datatype: str) -> None:
    wanted = client.InferRequestedOutput("x", binary_data=False)
    with pytest.raises(InferenceServerException, match=f"{datatype} cannot travel as JSON") as caught:
        triton.infer(f"echo_{datatype}", [infer_input("x", VALUES[datatype])], outputs=[wanted])
    assert caught.value.status() == "400"
    assert backend.submissions == []


def test_each_output_travels_as_asked_for_and_in_that_order(triton) -> None:
    outputs = [client.InferRequestedOutput("b", binary_data=False), client.InferRequestedOutput("a", binary_data=True)]
    result = triton.infer("two", two_inputs(), outputs=outputs)
    assert [output["name"] for output in result.get_response()["outputs"]] == ["b", "a"]
    assert result.get_output("b")["data"] == [1]
    assert result.get_output("a")["parameters"] == {"binary_data_size": 8}
    assert result.as_numpy("a").tolist() == [[0.0, 1.0]]


def test_binary_and_json_inputs_may_be_mixed(triton) -> None:
    mixed = [two_inputs(binary=False)[0], two_inputs()[1]]
    assert triton.infer("two", mixed).as_numpy("b").tolist() == [[1]]


@pytest.mark.parametrize("request_coding", [None, "gzip", "deflate"])
@pytest.mark.parametrize("response_coding", [None, "gzip", "deflate"])
@pytest.mark.parametrize("columns", [2, 100_000])
def test_both_directions_may_be_compressed(triton, request_coding, response_coding, columns: int) -> None:
    array = np.zeros((1, columns), np.float32)
    result = triton.infer(
        "echo_FP32",
        [infer_input("x", array)],
        request_compression_algorithm=request_coding,
        response_compression_algorithm=response_coding,
    )
    assert result.as_numpy("x").shape == (1, columns)


def test_the_request_id_is_echoed_only_if_given(triton) -> None:
    assert triton.infer("two", two_inputs(), request_id="4 µ\"'").get_response()["id"] == "4 µ\"'"
    assert "id" not in triton.infer("two", two_inputs()).get_response()
    json_only = [client.InferRequestedOutput("a", binary_data=False)]
    assert triton.infer("two", two_inputs(), outputs=json_only, request_id="7").get_response()["id"] == "7"


def test_priority_timeout_and_tenant_reach_the_backend(triton, backend) -> None:
    triton.infer("two", two_inputs(rows=3), priority=2, timeout=1500, headers={"X-Tenant": "blue"})
    assert (backend.submissions[-1].priority, backend.submissions[-1].timeout_ns) == (2, 1_500_000)
    assert (backend.submissions[-1].rows, backend.submissions[-1].tenant) == (3, "blue")
    triton.infer("two", two_inputs(), parameters={"anything": "else"})
    assert (backend.submissions[-1].priority, backend.submissions[-1].timeout_ns) == (0, None)


@pytest.mark.parametrize("binary", [True, False])
def test_classification_gives_the_best_first_with_labels(triton, binary: bool) -> None:
    outputs = [client.InferRequestedOutput("a", class_count=1, binary_data=binary)]
    result = triton.infer("two", two_inputs(rows=2), outputs=outputs)
    texts = [text.decode() if isinstance(text, bytes) else text for text in result.as_numpy("a").ravel()]
    assert texts == ["1.000000:1:dog", "3.000000:1:dog"]
    outputs = [client.InferRequestedOutput("b", class_count=5)]
    assert triton.infer("two", two_inputs(), outputs=outputs).as_numpy("b").tolist() == [[b"1:0"]]


def test_a_version_may_be_named_but_must_be_ours(triton) -> None:
    assert triton.infer("two", two_inputs(), model_version="1").get_response()["model_version"] == "1"
    with pytest.raises(InferenceServerException, match="Request for unknown model: 'two' version 9 is not found"):
        triton.infer("two", two_inputs(), model_version="9")


@pytest.mark.parametrize("id", [5, 2**64 - 1, "a"])
def test_a_model_without_state_ignores_sequences_as_any_parameter_that_it_does_not_know(triton, id) -> None:
    result = triton.infer("two", two_inputs(), sequence_id=id, sequence_start=True, sequence_end=True)
    assert result.as_numpy("a").tolist() == triton.infer("two", two_inputs()).as_numpy("a").tolist()


@pytest.mark.parametrize("most", [2**63, 2**64 - 1])
def test_priorities_are_unsigned_numbers_of_64_bits(triton, backend, most: int) -> None:
    triton.infer("two", two_inputs(), priority=most)
    assert backend.submissions[-1].priority == most


def test_server_and_model_metadata_are_what_clients_read(triton) -> None:
    server = triton.get_server_metadata()
    assert server["name"] == "headway"
    assert {"statistics", "binary_tensor_data"} <= set(server["extensions"])
    metadata = triton.get_model_metadata("two")
    assert metadata["versions"] == ["1"]
    assert metadata["inputs"][0] == {"name": "a", "datatype": "FP32", "shape": [-1, 2]}
    assert triton.get_model_metadata("two", "1") == metadata


def test_the_configuration_has_what_perf_analyzer_reads_and_our_settings(triton) -> None:
    config = triton.get_model_config("two")
    assert config["max_batch_size"] == 32
    assert config["model_transaction_policy"] == {"decoupled": False}
    assert "dynamic_batching" in config
    assert config["input"][1]["data_type"] == "TYPE_INT64"
    assert config["input"][0]["dims"] == [2]
    assert config["parameters"]["latency_budget_ms"] == {"string_value": "50.0"}
    assert triton.get_model_config("echo_BYTES")["input"][0]["data_type"] == "TYPE_STRING"


def test_statistics_grow_with_every_request_in_every_field_perf_analyzer_reads(triton) -> None:
    triton.infer("two", two_inputs(rows=2))
    first = triton.get_inference_statistics("two")["model_stats"][0]
    triton.infer("two", two_inputs(rows=2))
    second = triton.get_inference_statistics("two", "1")["model_stats"][0]
    assert (second["name"], int(second["version"])) == ("two", 1)
    assert second["inference_count"] - first["inference_count"] == 2
    assert second["execution_count"] - first["execution_count"] == 1
    for phase in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert second["inference_stats"][phase]["count"] - first["inference_stats"][phase]["count"] == 1
    for phase in ("fail", "cache_hit", "cache_miss"):
        assert second["inference_stats"][phase] == {"count": 0, "ns": 0}
    assert len(triton.get_inference_statistics()["model_stats"]) == len(VALUES) + 1


def test_health_follows_the_backend(triton, backend) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("two")
    assert triton.is_model_ready("two", "1")
    assert not triton.is_model_ready("three")
    backend.ready = False
    assert triton.is_server_live()
    assert not triton.is_server_ready()
    assert not triton.is_model_ready("two")


def test_the_repository_index_lists_the_models(triton) -> None:
    entries = triton.get_model_repository_index()
    assert {"name": "two", "version": "1", "state": "READY", "reason": ""} in entries


def test_what_is_left_out_says_so(triton) -> None:
    register = lambda: triton.register_system_shared_memory("r", "/r", 4)  # noqa: E731
    for call in (lambda: triton.load_model("two"), register, triton.get_log_settings):
        with pytest.raises(InferenceServerException, match="this server") as caught:
            call()
        assert caught.value.status() == "501"


def test_there_are_no_regions_and_unregistering_them_is_no_error(triton) -> None:
    assert triton.get_system_shared_memory_status() == []
    assert triton.get_cuda_shared_memory_status() == []
    triton.unregister_system_shared_memory()
    triton.unregister_cuda_shared_memory()
    triton.unregister_system_shared_memory("region")


def test_an_unknown_model_is_refused_in_tritons_words(triton) -> None:
    with pytest.raises(InferenceServerException, match="Request for unknown model: 'none' is not found") as caught:
        triton.infer("none", two_inputs())
    assert caught.value.status() == "404"


def test_the_asyncio_client_works_too(server: Server, backend) -> None:
    async def story() -> None:
        async with aio.InferenceServerClient(server.address) as triton:
            results = await asyncio.gather(*(triton.infer("two", two_inputs(), request_id=str(i)) for i in range(20)))
            assert [result.get_response()["id"] for result in results] == [str(i) for i in range(20)]
            packed = await triton.infer(
                "two", two_inputs(), request_compression_algorithm="gzip", response_compression_algorithm="deflate"
            )
            assert packed.as_numpy("a").tolist() == [[0.0, 1.0]]
            assert (await triton.get_model_config("two"))["name"] == "two"
            assert (await triton.get_inference_statistics("two"))["model_stats"]
            with pytest.raises(InferenceServerException, match="unknown input 'c'"):
                await triton.infer("two", [*two_inputs(), infer_input("c", np.ones((1, 1), np.float32))])

    asyncio.run(story())
