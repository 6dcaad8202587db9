"""Tests what both wires tell about the cache: a header or trailer of every answer, and the route that clears it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

from serving.api.served import ServedModel
from serving.cache.backend import CachedBackend
from serving.protocol.errors import BadMessage
from serving.protocol.pb import SERVICE, encode
from serving.testing.backend import EchoBackend
from tests.api.conftest import Server, model
from tests.api.grpc_serving import grpc_serving
from tests.cache.stories import Told

X = ("x", "FP32", (-1, 2))
TEXT = ("text", "BYTES", (-1, 1))
BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
Serve = Callable[..., Server]


async def cleared(changes: Mapping[str, Any]) -> dict[str, int]:
    if set(changes) - {"tenant"}:
        raise BadMessage("is unknown", path="color")
    return {"in_memory": len(changes), "shared": 0}


def cached(*tensors: Any, backend: EchoBackend | None = None, **more: Any) -> ServedModel:
    """Returns a model with a cache, whose outputs are its inputs."""
    kept = CachedBackend(
        backend or EchoBackend(),
        model="net",
        outputs=[tensor[0] for tensor in tensors or (X,)],
        fingerprint=b"v1",
        ttl_s=3600,
        most_bytes=1 << 24,
        observer=Told(),
        random=lambda: 0.5,
    )
    return model("net", *(tensors or (X,)), backend=kept, **more)  # type: ignore[arg-type]


@pytest.fixture(params=["short", "httptools"])
def url(request: pytest.FixtureRequest, serve: Serve) -> str:
    return f"http://{serve([cached(clear_cache=cleared)], http=request.param).address}"


def test_an_answer_over_http_says_whether_it_is_from_the_cache(url: str) -> None:
    said = [httpx.post(f"{url}/v2/models/net/infer", json=BODY).headers["x-headway-cache"] for _ in range(3)]
    assert said == ["miss", "hit", "hit"]


def test_a_hit_is_the_same_answer_in_whatever_form_it_is_asked_for(url: str) -> None:
    with tritonclient.http.InferenceServerClient(url.removeprefix("http://")) as client:
        given = tritonclient.http.InferInput("x", [1, 2], "FP32")
        given.set_data_from_numpy(np.array([[1, 2]], np.float32))
        for binary in (True, False, True):
            wanted = tritonclient.http.InferRequestedOutput("x", binary_data=binary)
            answer = client.infer("net", [given], outputs=[wanted], request_id=f"a{binary}")
            assert answer.as_numpy("x").tolist() == [[1, 2]]
            assert answer.get_response()["id"] == f"a{binary}"
    assert httpx.post(f"{url}/v2/models/net/infer", json=BODY).headers["x-headway-cache"] == "hit"


def test_statistics_tell_hits_and_misses(url: str) -> None:
    for _ in range(3):
        httpx.post(f"{url}/v2/models/net/infer", json=BODY)
    (stats,) = httpx.get(f"{url}/v2/models/net/stats").json()["model_stats"]
    counts = {name: stats["inference_stats"][name]["count"] for name in ("success", "cache_hit", "cache_miss")}
    assert counts == {"success": 3, "cache_hit": 2, "cache_miss": 1}
    assert stats["inference_count"] == 1


def test_a_model_without_a_cache_says_nothing(serve: Serve) -> None:
    address = serve([model("net", X, backend=EchoBackend())]).address
    answer = httpx.post(f"http://{address}/v2/models/net/infer", json=BODY)
    assert "x-headway-cache" not in answer.headers


def test_the_cache_is_cleared_over_http(url: str) -> None:
    clear = f"{url}/v2/models/net/cache/clear"
    assert httpx.post(clear, json={}).json() == {"in_memory": 0, "shared": 0}
    assert httpx.post(clear, json={"tenant": "acme"}).json() == {"in_memory": 1, "shared": 0}
    assert httpx.post(clear, json={"color": 1}).status_code == 400
    assert httpx.get(clear).status_code == 405
    versioned = f"{url}/v2/models/net/versions/1/cache/clear"
    assert httpx.post(versioned, json={}).status_code == 200


def test_clearing_the_cache_of_a_model_without_one_says_so(serve: Serve) -> None:
    address = serve([model("net", X, backend=EchoBackend())]).address
    answer = httpx.post(f"http://{address}/v2/models/net/cache/clear", json={})
    assert (answer.status_code, "net has no cache" in answer.json()["error"]) == (400, True)


@pytest.fixture(params=["plain", "fast"])
def channel(request: pytest.FixtureRequest) -> Iterator[grpc.Channel]:
    with (
        grpc_serving([cached(TEXT)], door=request.param) as served,
        grpc.insecure_channel(served.address, [("grpc.enable_http_proxy", 0)]) as made,
    ):
        yield made


@pytest.mark.parametrize("size", [10, 300_000], ids=["small", "decoded in a thread"])
def test_an_answer_over_grpc_says_in_its_trailers_whether_it_is_from_the_cache(
    channel: grpc.Channel, size: int
) -> None:
    contents = {"bytes_contents": [b"a" * size]}
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1, 1], "contents": contents}
    message = encode("ModelInferRequest", {"model_name": "net", "inputs": [tensor]})
    infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
    said = []
    for _ in range(2):
        _, call = infer.with_call(message, timeout=20)
        said.append(dict(call.trailing_metadata()).get("x-headway-cache"))
    assert said == ["miss", "hit"]
