"""Tests that an answer says, on both wires, which features were not known, if the request asks for it."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import httpx
import pytest

from serving.api.served import ServedModel
from serving.core.backend import Submitted
from serving.protocol.pb import SERVICE, encode
from serving.testing.backend import EchoBackend
from tests.api.conftest import Server, model
from tests.api.grpc_serving import grpc_serving

TEXT = ("text", "BYTES", (-1, 1))
SAID = "stats.age=missing:1, stats.spend=expired:2"
Serve = Callable[..., Server]


class Telling(EchoBackend):
    """An echo that tells about features if it is asked."""

    def submit(self, payload: object, *, feature_reasons: bool = False, **more: Any) -> Submitted:
        submitted = super().submit(payload, **more)
        if feature_reasons:
            submitted.then(lambda outcome: setattr(outcome, "features", SAID))
        return submitted


def bound() -> ServedModel:
    return model("net", TEXT, backend=Telling(), tells_features=True)  # type: ignore[arg-type]


def body(**parameters: object) -> dict[str, object]:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": ["a"]}
    return {"inputs": [tensor], "parameters": parameters}


@pytest.mark.parametrize("door", ["short", "httptools"])
def test_over_http_it_is_a_header(serve: Serve, door: str) -> None:
    url = f"http://{serve([bound(), model('plain', TEXT, backend=EchoBackend())], http=door).address}/v2/models"
    told = {
        asked: httpx.post(f"{url}/net/infer", json=body(**more)).headers.get("x-headway-features")
        for asked, more in {
            "yes": {"feature_reasons": True},
            "no": {"feature_reasons": False},
            "nothing": {},
        }.items()
    }
    assert told == {"yes": SAID, "no": None, "nothing": None}
    wrong = httpx.post(f"{url}/net/infer", json=body(feature_reasons=1))
    assert (wrong.status_code, "parameters.feature_reasons" in wrong.text) == (400, True)
    without = httpx.post(f"{url}/plain/infer", json=body(feature_reasons=True))
    assert (without.status_code, "x-headway-features" in without.headers) == (200, False)


@pytest.fixture(params=["plain", "fast"])
def channel(request: pytest.FixtureRequest) -> Iterator[grpc.Channel]:
    with (
        grpc_serving([bound()], door=request.param) as served,
        grpc.insecure_channel(served.address, [("grpc.enable_http_proxy", 0)]) as made,
    ):
        yield made


@pytest.mark.parametrize("size", [10, 300_000], ids=["small", "decoded in a thread"])
def test_over_grpc_it_is_in_the_trailers(channel: grpc.Channel, size: int) -> None:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1, 1], "contents": {"bytes_contents": [b"a" * size]}}
    infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
    said = []
    for parameters in ({"feature_reasons": {"bool_param": True}}, {}):
        message = encode("ModelInferRequest", {"model_name": "net", "inputs": [tensor], "parameters": parameters})
        _, call = infer.with_call(message, timeout=20)
        said.append(dict(call.trailing_metadata()).get("x-headway-features"))
    assert said == [SAID, None]
