"""Models that give any number of answers, over gRPC streams and over HTTP's generate and generate_stream."""

import asyncio
import gzip
import json
import queue
from collections.abc import AsyncIterator, Iterator
from functools import partial

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http
from tritonclient.utils import InferenceServerException

from models.reference import echo_spec, linear_spec, repeat_spec, words_spec
from models.spec import Limits, ModelSpec, TensorSpec
from serving.api.grpc.aio import Calls
from serving.api.grpc.service import STREAM
from serving.protocol.pb import encode
from tests.api.grpc_serving import service_of
from tests.api.test_witness import generating
from tests.house import House, house

PATIENCE_S = 20


@pytest.fixture(scope="module")
def served() -> Iterator[House]:
    slow = words_spec(name="slow-words", options={"step_ms": 20})
    failing = repeat_spec(options={"raise_on_value": 13})
    named = echo_of("named", *((name, "INT64", (-1, 1)) for name in ("id", "parameters", "priority", "timeout")))
    floats = echo_of("floats", ("x", "FP32", (-1, 16)), ("t", "FP64", (-1, 1)))
    # One row per batch: a row that is padded to more may differ in the last bit.
    linear = linear_spec(limits=Limits(max_batch_rows=1))
    with house(failing, words_spec(), slow, linear, repeat_spec(name="other"), named, floats) as running:
        yield running


def echo_of(name: str, *tensors: tuple[str, str, tuple[int, ...]]) -> ModelSpec:
    described = tuple(TensorSpec(name=name, datatype=datatype, shape=shape) for name, datatype, shape in tensors)
    return echo_spec(name=name, inputs=described, outputs=described)


def of(values: list[int]) -> list[triton.InferInput]:
    array = np.array([values], np.int32).reshape(1, -1)
    return [triton.InferInput("in", list(array.shape), "INT32").set_data_from_numpy(array)]


class Stream:
    """A client with an open stream, and the answers that it has received."""

    def __init__(self, address: str, **more: object) -> None:
        self.client = triton.InferenceServerClient(address)
        self._came: queue.Queue = queue.Queue()
        self.client.start_stream(partial(lambda came, result, error: came.put(error or result), self._came), **more)

    def next(self):
        return self._came.get(timeout=PATIENCE_S)

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.stop_stream()
        self.client.close()


def final(result) -> bool:
    return result.get_response().parameters["triton_final_response"].bool_param


def test_one_request_gets_many_answers_and_an_empty_last_one_if_it_asks_for_it(served: House) -> None:
    with Stream(served.grpc) as stream:
        stream.client.async_stream_infer("repeat", of([4, 5, 6]), request_id="a", enable_empty_final_response=True)
        answers = [stream.next() for _ in range(4)]
    assert [int(answer.as_numpy("out")[0, 0]) for answer in answers[:3]] == [4, 5, 6]
    assert [final(answer) for answer in answers] == [False, False, False, True]
    assert [answer.get_response().id for answer in answers] == ["a"] * 4
    assert not answers[3].get_response().outputs
    assert answers[3].get_response().model_name == "repeat"


def test_requests_of_one_stream_are_generated_side_by_side_each_in_its_order(served: House) -> None:
    with Stream(served.grpc) as stream:
        for id in "abc":
            values = of([ord(id) * 10 + index for index in range(20)])
            stream.client.async_stream_infer("other", values, request_id=id)
        answers = [stream.next() for _ in range(60)]
    for id in "abc":
        own = [int(answer.as_numpy("out")[0, 0]) for answer in answers if answer.get_response().id == id]
        assert own == [ord(id) * 10 + index for index in range(20)]


def test_a_failure_in_the_middle_is_told_and_the_stream_goes_on(served: House) -> None:
    with Stream(served.grpc) as stream:
        stream.client.async_stream_infer("repeat", of([1, 13, 2]))
        assert stream.next().as_numpy("out") == 1
        assert "told to fail on 13" in str(stream.next())
        stream.client.async_stream_infer("repeat", [triton.InferInput("in", [1, 2], "INT32")])
        assert isinstance(stream.next(), InferenceServerException)
        stream.client.async_stream_infer("repeat", of([3]))
        assert stream.next().as_numpy("out") == 3
    with Stream(served.grpc, headers={"triton_grpc_error": "true"}) as strict:
        strict.client.async_stream_infer("repeat", of([13]))
        assert strict.next().status() == "StatusCode.INTERNAL"


def test_a_client_that_cancels_its_stream_stops_the_generation(served: House) -> None:
    ledger = served.engines["slow-words"].ledger
    before = ledger.ended["Cancelled"]
    with Stream(served.grpc) as stream:
        text = np.array([["word " * 10_000]], dtype=object)
        given = triton.InferInput("text", [1, 1], "BYTES").set_data_from_numpy(text)
        stream.client.async_stream_infer("slow-words", [given])
        assert stream.next().as_numpy("word") == b"word"
        stream.client.stop_stream(cancel_requests=True)
    served.until(lambda: ledger.ended["Cancelled"] == before + 1 and ledger.is_empty())


def test_a_call_for_one_answer_is_refused_with_the_way_to_go(served: House) -> None:
    with triton.InferenceServerClient(served.grpc) as client:
        with pytest.raises(InferenceServerException, match="use ModelStreamInfer"):
            client.infer("repeat", of([1]))
        assert client.get_model_config("repeat").config.model_transaction_policy.decoupled
    with tritonclient.http.InferenceServerClient(served.http) as client:
        x = tritonclient.http.InferInput("in", [1, 1], "INT32").set_data_from_numpy(np.ones((1, 1), np.int32))
        with pytest.raises(InferenceServerException, match="use ModelStreamInfer"):
            client.infer("repeat", [x])
        assert client.get_model_config("repeat")["model_transaction_policy"] == {"decoupled": True}


# -- HTTP ----------------------------------------------------------------------------------------------------------


def post(served: House, path: str, body: object) -> httpx.Response:
    return httpx.post(f"http://{served.http}/v2/models/{path}", json=body, timeout=PATIENCE_S)


def events(text: str) -> list[dict[str, object]]:
    return [json.loads(event.removeprefix("data: ")) for event in text.split("\n\n") if event]


def test_generate_stream_sends_every_answer_as_an_event(served: House) -> None:
    answer = post(served, "words/generate_stream", {"text": "when the train left", "id": "7"})
    assert answer.headers["content-type"] == "text/event-stream"
    assert [event["word"] for event in events(answer.text)] == ["when", "the", "train", "left"]
    assert events(answer.text)[0] == {"id": "7", "model_name": "words", "model_version": "1", "word": "when"}
    assert post(served, "words/generate_stream", {"text": ""}).text == ""


def test_events_arrive_while_the_model_still_generates(served: House) -> None:
    ledger = served.engines["slow-words"].ledger
    before = ledger.ended["Cancelled"]
    url = f"http://{served.http}/v2/models/slow-words/generate_stream"
    with httpx.stream("POST", url, json={"text": "word " * 10_000}, timeout=PATIENCE_S) as answer:
        lines = answer.iter_lines()  # kept: httpx hangs up when the iterator is let go
        assert next(lines).startswith('data: {"model_name":"slow-words"')
        assert ledger.in_flight == 1
    served.until(lambda: ledger.ended["Cancelled"] == before + 1 and ledger.is_empty())


def test_a_short_request_may_be_compressed_as_any_other(served: House) -> None:
    url = f"http://{served.http}/v2/models/words/generate"
    body = gzip.compress(b'{"text": "noon"}')
    answer = httpx.post(url, content=body, headers={"content-encoding": "gzip"})
    assert (answer.status_code, answer.json().get("word")) == (200, "noon")
    assert httpx.post(url, content=body, headers={"content-encoding": "br"}).status_code == 415


def test_generate_answers_once_and_says_so_where_the_model_would_go_on(served: House) -> None:
    assert post(served, "words/generate", {"text": "noon"}).json()["word"] == "noon"
    for text in ("two words", ""):
        refused = post(served, "words/generate", {"text": text})
        assert refused.status_code == 400
        assert "answer" in refused.json()["error"]


def test_a_model_with_one_answer_can_be_asked_the_short_way_too(served: House) -> None:
    x = [float(value) for value in range(16)]
    once = post(served, "linear/generate", {"x": x}).json()
    assert len(once["y"]) == 4
    assert events(post(served, "linear/generate_stream", {"x": [x]}).text) == [once]


@pytest.mark.parametrize(
    ("model", "body", "said"),
    [
        ("words", {}, "text: is missing"),
        ("words", {"text": "a", "sampling": {"top": 1}}, "sampling: is not an input (the model takes 'text')"),
        ("words", {"text": "a", "sampling": None}, "sampling: is not an input"),
        ("words", {"text": "a", "sampling": [1]}, "sampling: is not an input"),
        ("words", {"text": "a", "parameters": {"sampling": [1]}}, "parameters.sampling: must be"),
        ("words", {"text": 4}, "text.data"),
        ("words", {"text": ["a", "b"]}, "text: 2 values"),
        ("words", {"text": []}, "text: 0 values"),
        ("words", [], "not a JSON object"),
        ("words", {"text": "a", "parameters": 3}, "parameters: must be an object"),
        ("words", {"text": "a", "parameters": {"priority": -1}}, "parameters.priority"),
        ("words", {"text": "a", "id": 3}, "id: must be a text"),
        ("linear", {"x": [1, 2]}, "x: 2 values"),
        ("repeat", {"in": 2**40}, "expected int <= 2147483647"),
        ("repeat", {"in": [[{}]]}, "in.data"),
        ("repeat", {"in": {"a": 1}}, "in.data"),
        ("repeat", {"in": None}, "in.data"),
        ("linear", {"x": [None] * 16}, "x.data"),
        ("words", {"text": "a", "priority": 2**64}, "parameters.priority"),
        ("words", {"text": "a", "timeout": -1}, "parameters.timeout"),
    ],
)
def test_a_request_that_does_not_fit_is_refused_with_its_path(served: House, model: str, body, said: str) -> None:
    for operation in ("generate", "generate_stream"):
        refused = post(served, f"{model}/{operation}", body)
        assert refused.status_code == 400
        assert said in refused.json()["error"]


@pytest.mark.parametrize("operation", ["generate", "generate_stream"])
def test_inputs_may_be_called_as_the_fields_of_the_protocol(served: House, operation: str) -> None:
    """Triton gives no answer to compare with, since it reads `id` as a text."""
    answer = post(served, f"named/{operation}", {"id": 7, "parameters": 9, "priority": 3, "timeout": [4]}).text
    assert json.loads(answer.removeprefix("data: ")) == {
        "model_name": "named",
        "model_version": "1",
        **{"id": 7, "parameters": 9, "priority": 3, "timeout": 4},
    }


def test_nan_and_infinities_are_numbers_as_in_infer(served: House) -> None:
    x = "[NaN, Infinity, -Infinity" + ", 0.5" * 13 + "]"
    answer = httpx.post(f"http://{served.http}/v2/models/floats/generate", content=f'{{"x": {x}, "t": NaN}}')
    assert answer.status_code == 200
    assert str(json.loads(answer.text)["x"][:4]) == "[nan, inf, -inf, 0.5]"
    for body in (
        '{"x": [NaN}',
        '{"x": [NaN], "\\ud800": 1}',
        '{"x": NaN, "y": ' + "[" * 5000,
        b'{"x": NaN, "\xff": 1}',
    ):
        assert httpx.post(f"http://{served.http}/v2/models/floats/generate", content=body).status_code == 400


def test_fields_that_are_no_inputs_are_parameters_of_the_request(served: House) -> None:
    """Triton's generate extension reads both places too."""
    for more in ({"temperature": 0.5, "stop": "no", "echo": True, "n": 3}, {"parameters": {"temperature": 0.5}}):
        assert post(served, "words/generate", {"text": "noon", **more}).json()["word"] == "noon"


def test_json_nested_deeper_than_python_goes_is_no_fault_of_ours(served: House) -> None:
    body = '{"in": ' + "[" * 900 + "1" + "]" * 900 + "}"
    answer = httpx.post(f"http://{served.http}/v2/models/repeat/generate", content=body)
    assert answer.json()["out"] == 1


def test_a_failure_after_the_first_event_is_an_event_and_before_it_a_status(served: House) -> None:
    late = events(post(served, "repeat/generate_stream", {"in": [1, 13]}).text)
    assert late[0]["out"] == 1
    assert "told to fail on 13" in late[1]["error"]
    early = post(served, "repeat/generate_stream", {"in": 13})
    assert early.status_code == 500
    assert httpx.get(f"http://{served.http}/v2/models/words/generate").status_code == 405


def test_answers_of_requests_side_by_side_are_written_one_at_a_time() -> None:
    """grpc.aio aborts a call if two tasks write at once."""

    class Context:
        def __init__(self) -> None:
            self.is_writing = False
            self.written = 0

        def invocation_metadata(self) -> tuple[()]:
            return ()

        def time_remaining(self) -> None:
            return None

        async def write(self, message: bytes) -> None:
            assert not self.is_writing
            self.is_writing = True
            await asyncio.sleep(0)
            self.is_writing = False
            self.written += 1

    async def story() -> int:
        context = Context()
        x = {"name": "x", "datatype": "FP32", "shape": [1, 2], "contents": {"fp32_contents": [1, 2]}}

        async def messages() -> AsyncIterator[bytes]:
            for _ in range(8):
                yield encode("ModelInferRequest", {"model_name": "m", "inputs": [x]})

        _, served = generating()
        stream = Calls(service_of([served])).handlers()[STREAM].stream_stream
        await stream(messages(), context)
        return context.written

    assert asyncio.run(story()) == 16
