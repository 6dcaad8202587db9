"""A model without a batch dimension (Triton's `max_batch_size: 0`), over both wires. The answers equal those of a real
Triton 2.51 to the same requests, except where a test says otherwise."""

import asyncio
from collections.abc import Iterator
from uuid import uuid4

import httpx
import numpy as np
import pytest
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from tritonclient.utils import shared_memory as shm

from models.reference import NumpyModel, echo_spec
from models.spec import Limits, ModelSpec, TensorSpec
from serving.api.shared_memory.regions import Regions
from tests.api.triton_clients import connect, failure, shared_input, shared_output
from tests.house import House, house


def tensor(name: str, *shape: int, datatype: str = "FP32") -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape, batched=False)


X, Z, TEXT, ONE = tensor("x", -1), tensor("z", -1, 2), tensor("text", -1, datatype="BYTES"), tensor("one")
ECHO = echo_spec(name="one", inputs=(X, Z), outputs=(X, Z), labels={"x": ("a", "b", "c")})
TEXTS = echo_spec(name="texts", inputs=(TEXT, ONE), outputs=(TEXT, ONE))
RAW = echo_spec(name="raw", inputs=(Z,), outputs=(Z,))


class Doubling:
    """Generates two answers that equal the input."""

    def generate(self, inputs):
        for _ in range(2):
            yield {"y": inputs["x"]}


def counting(spec: ModelSpec) -> NumpyModel:
    return NumpyModel(spec, lambda x, total: (total + x, total + x))


COUNTING = ModelSpec(
    name="counting",
    factory="tests.api.test_unbatched:counting",
    inputs=(tensor("x", 3),),
    outputs=(tensor("sum", 3),),
    state=(tensor("total", 3),),
)
DOUBLING = ModelSpec(
    name="doubling",
    factory="tests.api.test_unbatched:Doubling",
    inputs=(X,),
    outputs=(tensor("y", -1),),
    decoupled=True,
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(ECHO, TEXTS, RAW, COUNTING, DOUBLING, regions=Regions(tmp_path_factory.mktemp("regions"))) as running:
        yield running


def given(wire, **arrays: np.ndarray) -> list:
    names = {np.dtype(np.float32): "FP32", np.dtype(object): "BYTES"}
    return [
        wire.InferInput(name, list(array.shape), names[array.dtype]).set_data_from_numpy(array)
        for name, array in arrays.items()
    ]


x, z = np.array([1, 3, 2], np.float32), np.array([[1, 2], [3, 4]], np.float32)


def test_inputs_of_different_first_sizes_come_back_as_they_were(wire, triton) -> None:
    result = triton.infer("one", given(wire, x=x, z=z))
    assert result.as_numpy("x").tolist() == [1, 3, 2]
    assert result.as_numpy("z").tolist() == [[1, 2], [3, 4]]
    texts = np.array([b"one", b"two and more"], dtype=object)
    result = triton.infer("texts", given(wire, text=texts, one=np.array(7, np.float32)))
    assert (result.as_numpy("text").tolist(), result.as_numpy("one").tolist()) == (texts.tolist(), 7)


def test_all_elements_are_ranked_together_for_classification(wire, triton) -> None:
    wanted = [wire.InferRequestedOutput("x", class_count=2), wire.InferRequestedOutput("z", class_count=3)]
    result = triton.infer("one", given(wire, x=x, z=z), outputs=wanted)
    assert result.as_numpy("x").tolist() == [b"3.000000:1:b", b"2.000000:2:c"]
    assert result.as_numpy("z").tolist() == [b"4.000000:3", b"3.000000:2", b"2.000000:1"]


def test_requests_that_do_not_fit_are_refused_with_the_declared_shape(wire, triton) -> None:
    message = failure(triton.infer, "one", given(wire, x=x[np.newaxis], z=z))
    assert "input 'x' takes 1 dimensions [-1], got [1, 3]" in message
    assert "takes 2 (shape [-1, 2]), got 3" in failure(triton.infer, "one", given(wire, x=x, z=np.ones((1, 3), "f4")))


def test_outputs_and_inputs_lie_in_shared_memory_as_they_are(wire, triton) -> None:
    key = f"/headway_test_{uuid4().hex}"
    memory = shm.create_shared_memory_region(key[1:], key, 256)
    try:
        shm.set_shared_memory_region(memory, [x])
        triton.register_system_shared_memory("all", key, 256)
        inputs = [shared_input(wire, "x", x.shape, "FP32", "all", x.nbytes), *given(wire, z=z)]
        outputs = [shared_output(wire, "z", "all", z.nbytes, 128), wire.InferRequestedOutput("x")]
        result = triton.infer("one", inputs, outputs=outputs)
        assert result.as_numpy("x").tolist() == [1, 3, 2]
        assert shm.get_contents_as_numpy(memory, np.float32, z.shape, 128).tolist() == z.tolist()
        said = result.get_output("z")
        assert list(said["shape"] if wire is over_http else said.shape) == [2, 2]
    finally:
        shm.destroy_shared_memory_region(memory)


def test_metadata_configuration_and_statistics_are_tritons(served: House) -> None:
    with connect(served, over_http) as client, connect(served, over_grpc) as other:
        shapes = [tensor["shape"] for tensor in client.get_model_metadata("one")["inputs"]]
        assert shapes == [[-1], [-1, 2]]
        config = client.get_model_config("one")
        assert config["max_batch_size"] == 0
        assert [tensor["dims"] for tensor in config["input"]] == [[-1], [-1, 2]]
        assert [tensor["dims"] for tensor in config["output"]] == [[-1], [-1, 2]]
        assert not {"dynamic_batching", "sequence_batching"} & set(config)
        assert client.get_model_config("counting")["max_batch_size"] == 0
        assert "sequence_batching" in client.get_model_config("counting")
        config = other.get_model_config("one").config
        assert (config.max_batch_size, list(config.input[1].dims), config.HasField("dynamic_batching")) == (
            0,
            [-1, 2],
            False,
        )
        before = client.get_inference_statistics("raw")["model_stats"][0]
        for _ in range(3):
            client.infer("raw", given(over_http, z=np.ones((5, 2), np.float32)))
        after = client.get_inference_statistics("raw")["model_stats"][0]
    assert after["inference_count"] - before["inference_count"] == 3
    assert after["execution_count"] - before["execution_count"] == 3
    assert [batch["batch_size"] for batch in after["batch_stats"]] == [1]


def test_every_request_is_computed_alone_however_many_wait(served: House) -> None:
    before = served.engines["one"].statistics()
    counts = before.inference_count, before.execution_count

    async def story() -> list[list[float]]:
        async with httpx.AsyncClient(base_url=f"http://{served.http}/v2/models/one/", timeout=60) as client:
            bodies = [body(x=[float(index)] * (index % 3 + 1), z=[[1.0, 2.0]]) for index in range(40)]
            answers = await asyncio.gather(*(client.post("infer", json=each) for each in bodies))
        return [answer.json()["outputs"][0]["data"] for answer in answers]

    assert asyncio.run(story()) == [[float(index)] * (index % 3 + 1) for index in range(40)]
    after = served.engines["one"].statistics()
    assert (after.inference_count - counts[0], after.execution_count - counts[1]) == (40, 40)
    assert set(after.by_batch_rows) == {1}


def body(**arrays: list) -> dict:
    shapes = {name: list(np.shape(values)) for name, values in arrays.items()}
    inputs = [
        {"name": name, "datatype": "FP32", "shape": shapes[name], "data": np.ravel(values).tolist()}
        for name, values in arrays.items()
    ]
    return {"inputs": inputs}


def test_generate_takes_and_gives_tensors_without_a_row(served: House) -> None:
    url = f"http://{served.http}/v2/models/"
    answer = httpx.post(f"{url}one/generate", json={"x": [1, 2, 3], "z": [1, 2, 3, 4]}).json()
    assert (answer["x"], answer["z"]) == ([1, 2, 3], [1, 2, 3, 4])
    assert httpx.post(f"{url}one/generate", json={"x": 5, "z": [1, 2]}).json()["x"] == 5
    assert (
        "3 values do not fit the shape [-1, 2]" in httpx.post(f"{url}one/generate", json={"x": 5, "z": [1, 2, 3]}).text
    )
    assert httpx.post(f"{url}texts/generate", json={"text": "a", "one": 2}).json()["one"] == 2
    events = httpx.post(f"{url}doubling/generate_stream", json={"x": [1, 2]}).text.strip().split("\n\n")
    assert len(events) == 2


def test_what_generates_gets_the_tensor_as_it_was_sent_and_is_classified_whole(served: House) -> None:
    answers: list = []
    with connect(served, over_grpc) as client:
        client.start_stream(lambda result, error: answers.append(error or result))
        wanted = [over_grpc.InferRequestedOutput("y", class_count=1)]
        client.async_stream_infer("doubling", given(over_grpc, x=x))
        client.async_stream_infer("doubling", given(over_grpc, x=x), outputs=wanted)
        served.until(lambda: len(answers) == 4)
        client.stop_stream()
    assert sorted(str(result.as_numpy("y").tolist()) for result in answers) == [
        *["[1.0, 3.0, 2.0]"] * 2,
        *["[b'3.000000:1']"] * 2,
    ]


def test_a_state_is_carried_without_a_row_too(wire, triton) -> None:
    for starts, expected in ((True, [1, 3, 2]), (False, [2, 6, 4])):
        result = triton.infer("counting", given(wire, x=x), sequence_id=31, sequence_start=starts)
        assert result.as_numpy("sum").tolist() == expected


def test_a_raw_body_is_the_whole_tensor(served: House) -> None:
    url = f"http://{served.http}/v2/models/raw/infer"
    answer = httpx.post(
        url, content=np.arange(6, dtype="<f4").tobytes(), headers={"Inference-Header-Content-Length": "0"}
    )
    head = int(answer.headers["inference-header-content-length"])
    assert np.frombuffer(answer.content[head:], "<f4").tolist() == [0, 1, 2, 3, 4, 5]
    assert b'"shape":[3,2]' in answer.content[:head]


def test_the_openapi_document_has_the_shapes_that_clients_send(served: House) -> None:
    document = httpx.get(f"http://{served.http}/openapi.json").json()
    (first, second) = document["paths"]["/v2/models/one/infer"]["post"]["x-model"]["inputs"]
    assert first == {"name": "x", "datatype": "FP32", "shape": [-1], "batched": False}
    assert second["shape"] == [-1, 2]


def test_an_output_of_the_wrong_shape_is_reported_with_the_declared_shape() -> None:
    wrong = echo_spec(name="wrong", inputs=(Z,), outputs=(tensor("y", 3),))
    with house(wrong) as running, connect(running, over_http) as client:
        message = failure(client.infer, "wrong", given(over_http, z=z))
    assert "the model returned shape [2, 2] for output 'y', declared as [3]" in message


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"inputs": (X,), "outputs": (TensorSpec(name="y", datatype="FP32", shape=(-1,)),)},
            "must have a batch dimension",
        ),
        ({"limits": Limits(max_batch_rows=8)}, "limits.max_batch_rows: a model without a batch dimension"),
    ],
)
def test_specs_that_contradict_themselves_are_refused(fields: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        echo_spec(**{"inputs": (X,), "outputs": (X,)} | fields)
