"""Malformed requests: each is answered with a 4xx, and the next request on the same connection succeeds."""

import http.client
import json
import zlib

import numpy as np
import pytest

from serving.protocol.binary_codec import encode_request
from serving.protocol.messages import InferInput, InferRequest
from serving.testing.backend import EchoBackend
from tests.api.conftest import Server, model

LIMIT = 1_000_000
GOOD, GOOD_LENGTH = encode_request(
    InferRequest(
        (
            InferInput("a", "FP32", np.ones((2, 4), np.float32)),
            InferInput("b", "INT64", np.ones((2, 3), np.int64)),
        )
    )
)


def tensor(name: str = "a", datatype: str = "FP32", shape: object = (1, 4), **more: object) -> dict[str, object]:
    more = more or {"data": [0] * 4}
    return {"name": name, "datatype": datatype, "shape": shape, **more}


def message(*inputs: dict[str, object], **more: object) -> bytes:
    given = inputs or (tensor(),)
    known = {entry["name"] for entry in given}
    rest = [] if "b" in known else [tensor("b", "INT64", (1, 3), data=[1, 2, 3])]
    return json.dumps({"inputs": [*given, *rest], **more}).encode()


@pytest.fixture(scope="module", params=["short", "httptools", "h11"])
def server(serve_module, request) -> Server:
    served = model("m", ("a", "FP32", (-1, 4)), ("b", "INT64", (-1, -1)), backend=EchoBackend(), max_body_bytes=LIMIT)
    return serve_module([served, model("one", ("x", "FP32", (-1, -1)), backend=EchoBackend()),
                  model("text", ("x", "BYTES", (-1, 1)), backend=EchoBackend()),
                  model("wide", ("x", "FP32", (-1, -1, -1)), backend=EchoBackend())], http=request.param)  # fmt: skip


@pytest.fixture
def connection(server: Server):
    connected = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    yield connected
    connected.close()


def post(
    connection, body: bytes, length: object = None, path: str = "/v2/models/m/infer", **headers: str
) -> tuple[int, str]:
    if length is not None:
        headers["Inference-Header-Content-Length"] = str(length)
    connection.request("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    content = response.read()
    assert response.headers["content-length"] == str(len(content))
    if response.status == 200:
        return 200, ""
    assert response.headers["content-type"] == "application/json"
    answer = json.loads(content)
    assert list(answer) == ["error"]
    return response.status, answer["error"]


def assert_still_well(connection) -> None:
    assert post(connection, GOOD, GOOD_LENGTH) == (200, "")


BAD = {
    "empty": (b"", None, "not valid JSON"),
    "no JSON": (b"{'inputs': 1}", None, "not valid JSON"),
    "cut JSON": (message()[:-5], None, "not valid JSON"),
    "an array": (b"[]", None, "expected object, got array"),
    "deep arrays": (b'{"inputs":[],"x":' + b"[" * 200_000, None, "nested too deeply"),
    "deep objects": (b'{"x":' + b'{"x":' * 100_000, None, "nested too deeply"),
    "deep data": (b'{"inputs":[{"name":"a","datatype":"FP32","shape":[1,4],"data":' + b"[" * 200_000, None, "deeply"),
    "deep NaN": (b'{"x":[NaN,' + b"[" * 200_000, None, "nested too deeply"),
    "a lone surrogate beside a NaN": (
        message(tensor(data=[float("nan")] * 4), id="ID").replace(b"ID", b"\\ud800"), None, "not valid",
    ),
    "a lone surrogate for a name": (
        message(tensor(data=[float("nan")] * 4)).replace(b'"a"', b'"\\ud800"'), None, "not valid",
    ),
    "a lone surrogate as a key": (
        message(tensor(data=[float("nan")] * 4), parameters={"K": 1}).replace(b"K", b"\\udfff"), None, "not valid",
    ),
    "a NaN for an id": (message(id=float("nan")), None, "id: expected str | null, got float"),
    "a NaN for a shape": (message(tensor(shape=[float("nan"), 4])), None, "inputs[0].shape[0]: expected int"),
    "a NaN for a size": (message(parameters={"timeout": float("nan")}), None, "parameters.timeout"),
    "an array with a NaN": (b"[NaN]", None, "expected object, got array"),
    "only NaN": (b"NaN", None, "expected object"),
    "NaN for whole numbers": (
        message(tensor("b", "INT64", (1, 1), data=[float("nan")]), tensor()), None, "inputs[0].data",
    ),
    "a number beyond all": (message(tensor(data=[1])).replace(b"[1]", b"[1e400,1,1,1]", 1), None, "inputs[0].data"),
    "a number beyond all beside a NaN": (
        message(tensor(data=[7])).replace(b"[7]", b"[1e400,NaN,1,1]"), None, "out of range",
    ),
    "endless digits": (message(tensor(data=[7])).replace(b"[7]", b"[" + b"9" * 6000 + b"]"), None, "inputs[0].data"),
    "endless digits beside a NaN": (
        message(tensor(data=[7])).replace(b"[7]", b"[NaN," + b"9" * 6000 + b"]"), None, "inputs[0].data",
    ),
    "a byte order mark": (b"\xef\xbb\xbf" + message(), None, "not valid JSON"),
    "a byte order mark beside a NaN": (
        b"\xef\xbb\xbf" + message(tensor(data=[float("nan")] * 4)), None, "not valid JSON",
    ),
    "UTF-16": (message(tensor(data=[float("nan")] * 4)).decode().encode("utf-16"), None, "not valid JSON"),
    "no UTF-8": (b'{"inputs":[],"id":"\xff\xfe"}', None, "not valid JSON"),
    "a wrong type": (message(tensor(shape="2")), None, "inputs[0].shape: expected array, got str"),
    "a wrong element": (message(tensor(data=[1, "x", 3, 4])), None, "inputs[0].data[1]: expected float, got str"),
    "a negative dimension": (message(tensor(shape=[1, -4])), None, "inputs[0].shape[1]: dimensions must not be"),
    "overflowing dimensions": (message(tensor(shape=[2**40, 2**40])), None, "inputs[0].shape: the number of elements"),
    "an endless dimension": (message(tensor(shape=[2**63, 4])), None, "inputs[0].shape[0]"),
    "overflow with binary data": (
        message(tensor(shape=[2**60, 4], parameters={"binary_data_size": 16})), None, "16 bytes of data, but",
    ),
    "a wrong rank": (message(tensor(shape=[4])), None, "inputs[0].shape: input 'a' takes 2 dimensions [-1, 4]"),
    "a wrong fixed dimension": (message(tensor(shape=[2, 2])), None, "inputs[0].shape[1]: input 'a' takes 4"),
    "no rows": (message(tensor(shape=[0, 4], data=[])), None, "inputs[0].shape[0]: must be at least 1"),
    "unequal rows": (message(tensor(shape=[2, 4], data=[0] * 8)), None, "inputs[1].shape[0]: 1 rows, but the first"),
    "a wrong datatype": (message(tensor(datatype="FP64")), None, "inputs[0].datatype: input 'a' takes FP32, got FP64"),
    "an unknown datatype": (message(tensor(datatype="FP33")), None, "unknown datatype 'FP33'"),
    "an unknown input": (message(tensor("z")), None, "inputs[0]: unknown input 'z', the model takes 'a', 'b'"),
    "a missing input": (message(tensor("b", "INT64", (1, 1), data=[1])), None, "inputs: missing 'a'"),
    "a doubled input": (message(tensor(), tensor()), None, "inputs[1]: input 'a' is given twice"),
    "an unknown output": (message(outputs=[{"name": "z"}]), None, "outputs[0]: unknown output 'z', the model returns"),
    "a doubled output": (message(outputs=[{"name": "a"}] * 2), None, "outputs[1]: output 'a' is requested twice"),
    "too few values": (message(tensor(data=[1])), None, "inputs[0].data: 1 elements, but the shape needs 4"),
    "a bad priority": (message(parameters={"priority": -1}), None, "parameters.priority: must be a whole number"),
    "a bad timeout": (message(parameters={"timeout": "soon"}), None, "parameters.timeout: must be a whole number"),
    "a huge timeout": (message(parameters={"timeout": 2**70}), None, "parameters.timeout"),
    "a bad class count": (
        message(outputs=[{"name": "a", "parameters": {"classification": -1}}]), None, "outputs[0].parameters.classif",
    ),
    "an empty head": (GOOD, 0, "needs a model with exactly one input"),
    "a head beyond the body": (GOOD, len(GOOD) + 1, "but the body has"),
    "an endless head": (GOOD, "9" * 30, "must be a number of bytes"),
    "a negative head": (GOOD, -1, "must be a number of bytes"),
    "a head that is no number": (GOOD, "abc", "must be a number of bytes"),
    "a head cut too early": (GOOD, 20, "not valid JSON"),
    "a head cut too late": (GOOD, GOOD_LENGTH + 3, "not valid JSON"),
    "a cut tail": (GOOD[:-1], GOOD_LENGTH, "add up to"),
    "a long tail": (GOOD + b"x", GOOD_LENGTH, "add up to"),
    "a missing header length": (GOOD, None, "not valid JSON"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_is_told_what_is_wrong_and_harms_nobody(connection, case: str) -> None:
    body, length, complaint = BAD[case]
    status, text = post(connection, body, length)
    assert (status, complaint in text) == (400, True), text
    assert_still_well(connection)


def test_a_body_over_the_limit_is_refused_before_it_is_read(connection) -> None:
    status, text = post(connection, bytes(5 * LIMIT))
    assert (status, text) == (413, f"the request body is larger than {LIMIT} bytes, the limit of this server")
    assert_still_well(connection)


def test_a_body_without_a_length_is_refused_when_it_exceeds_the_limit(server: Server, connection) -> None:
    other = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    other.putrequest("POST", "/v2/models/m/infer")
    other.putheader("Transfer-Encoding", "chunked")
    other.endheaders()
    for _ in range(LIMIT // 50_000 + 1):
        other.send(b"c350\r\n" + bytes(50_000) + b"\r\n")
    response = other.getresponse()
    assert (response.status, response.headers["connection"]) == (413, "close")
    other.close()
    assert_still_well(connection)


def test_a_chunked_body_is_as_good_as_any(connection) -> None:
    connection.request("POST", "/v2/models/m/infer", iter([GOOD[:50], GOOD[50:]]),
                       {"Inference-Header-Content-Length": str(GOOD_LENGTH)}, encode_chunked=True)  # fmt: skip
    response = connection.getresponse()
    assert (response.status, len(response.read()) > 0) == (200, True)


def test_a_bomb_is_refused_by_what_comes_out_of_it(connection) -> None:
    status, text = post(connection, zlib.compress(bytes(20 * LIMIT)), Content_Encoding="deflate")
    assert (status, text) == (413, f"the body is larger than {LIMIT} bytes after decompression")
    assert_still_well(connection)


def test_damaged_and_foreign_encodings_are_refused(connection) -> None:
    assert post(connection, b"nonsense", Content_Encoding="gzip")[0] == 400
    assert post(connection, zlib.compress(GOOD)[:-4], GOOD_LENGTH, Content_Encoding="deflate")[0] == 400
    assert post(connection, GOOD, GOOD_LENGTH, Content_Encoding="br")[0] == 415
    assert_still_well(connection)


def test_a_client_that_leaves_in_the_middle_of_its_body_harms_nobody(server: Server, connection) -> None:
    other = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    other.putrequest("POST", "/v2/models/m/infer")
    other.putheader("Content-Length", "1000")
    other.endheaders()
    other.send(bytes(10))
    other.close()
    assert_still_well(connection)


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/html", "application/json"])
def test_the_content_type_decides_nothing(connection, content_type: str) -> None:
    assert post(connection, GOOD, GOOD_LENGTH, Content_Type=content_type) == (200, "")


@pytest.mark.parametrize(
    ("verb", "path", "status", "text"),
    [
        ("GET", "/v2/models/m/infer", 405, "GET is not allowed here, use POST"),
        ("POST", "/v2/models/m/config", 405, "POST is not allowed here, use GET"),
        ("DELETE", "/v2/models/m", 405, "DELETE is not allowed here, use GET"),
        ("POST", "/v2/health/live", 405, "POST is not allowed here, use GET"),
        ("GET", "/v2/repository/index", 405, "GET is not allowed here, use POST"),
        ("GET", "/v2/models/none", 404, "Request for unknown model: 'none' is not found"),
        ("GET", "/v2/models/m/versions/2/ready", 404, "Request for unknown model: 'm' version 2 is not found"),
        ("GET", "/v2/models/m/nothing", 404, "no such path: /v2/models/m/nothing"),
        ("GET", "/v2/models/mm/infer", 404, "Request for unknown model: 'mm' is not found"),
        ("GET", "/v3", 404, "no such path: /v3"),
        ("GET", "/dashboards", 404, "no such path: /dashboards"),
        ("POST", "/v2/repository/index", 400, "not valid JSON"),
    ],
)
def test_wrong_paths_and_verbs_get_json_errors(connection, verb: str, path: str, status: int, text: str) -> None:
    connection.request(verb, path, b"{" if verb == "POST" else None)
    response = connection.getresponse()
    answer = json.loads(response.read())
    assert (response.status, list(answer)) == (status, ["error"])
    assert text in answer["error"]
    assert status != 405 or response.headers["allow"] in answer["error"]
    assert_still_well(connection)


def test_a_raw_body_is_the_only_input_of_a_single_row(connection) -> None:
    values = np.arange(5, dtype=np.float32)
    assert post(connection, values.tobytes(), 0, "/v2/models/one/infer") == (200, "")
    assert post(connection, b"any bytes at all", 0, "/v2/models/text/infer") == (200, "")
    status, text = post(connection, b"12345", 0, "/v2/models/one/infer")
    assert (status, "not a multiple of 4" in text) == (400, True)
    assert post(connection, b"", 0, "/v2/models/one/infer") == (200, "")  # a row without elements
    status, text = post(connection, bytes(4), 0, "/v2/models/wide/infer")
    assert (status, "at most one variable dimension" in text) == (400, True)
