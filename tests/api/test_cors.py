"""The headers of CORS in answers of the front, of models and of the fast path."""

import httpx
import pytest

from serving.api.http.app import ModelApp
from serving.api.http.connection import fast_path
from serving.api.http.cors import Cors
from serving.api.http.front import FrontApp
from serving.testing.backend import EchoBackend
from tests.api.conftest import Server, model, operations_of

PAGE = "https://app.example"
BODY = '{"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1]}]}'


@pytest.fixture(params=["short", "httptools"])
def ask(request):
    """Returns a function that starts a server which allows the given origins, and returns a client of it."""
    servers = []

    def start(*origins: str) -> httpx.Client:
        served = model("m", ("x", "FP32", (-1, -1)), backend=EchoBackend())
        cors = Cors(origins) if origins else None
        app = ModelApp(served, cors=cors)
        # The front has no cors of its own here: each app answers for itself, behind a server that knows nothing of it.
        front = FrontApp(operations_of([served]), cors=cors)

        async def both(scope, receive, send) -> None:
            own = scope["type"] == "http" and scope["path"].startswith("/v2/models/m")
            await (app if own else front)(scope, receive, send)

        http = fast_path(app) if request.param == "short" else "httptools"
        servers.append(Server(both, http=http, loop="asyncio").open())
        return httpx.Client(base_url=f"http://{servers[-1].address}")

    yield start
    for server in servers:
        server.close()


def test_without_the_setting_no_answer_speaks_of_origins(ask) -> None:
    with ask() as client:
        answer = client.post("/v2/models/m/infer", content=BODY, headers={"origin": PAGE})
        assert answer.status_code == 200
        assert not [name for name in answer.headers if name.startswith("access-control") or name == "vary"]
        assert (
            client.options("/v2", headers={"origin": PAGE, "access-control-request-method": "GET"}).status_code == 405
        )


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v2/models/m/infer", BODY, 200),
        ("POST", "/v2/models/m/infer", "{", 400),
        ("GET", "/v2/models/m", None, 200),
        ("GET", "/v2/models/m/infer", None, 405),
        ("GET", "/v2", None, 200),
        ("GET", "/v2/models/nobody", None, 404),
        ("GET", "/nowhere", None, 404),
    ],
)
def test_an_allowed_page_reads_every_answer_errors_too(ask, method, path, body, status) -> None:
    with ask(PAGE, "https://other.example") as client:
        for _ in range(2):  # the second head is a known one
            answer = client.request(method, path, content=body, headers={"origin": PAGE})
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert "x-request-id" in answer.headers["access-control-expose-headers"]
            assert answer.headers["vary"] == "origin"
            assert "access-control-allow-credentials" not in answer.headers


def test_pages_of_other_origins_get_no_permission_and_caches_get_vary(ask) -> None:
    with ask(PAGE) as client:
        for origin in ("https://evil.example", "null", "https://app.example.evil.example", "http://app.example"):
            answer = client.post("/v2/models/m/infer", content=BODY, headers={"origin": origin})
            assert "access-control-allow-origin" not in answer.headers
            assert answer.headers["vary"] == "origin"
        assert client.get("/v2").headers["vary"] == "origin"


def test_a_preflight_is_answered_for_the_pages_that_are_allowed(ask) -> None:
    wanted = {"access-control-request-method": "POST", "access-control-request-headers": "content-type, x-request-id"}
    with ask(PAGE) as client:
        for path in ("/v2/models/m/infer", "/v2", "/v2/models/nobody/infer"):
            answer = client.options(path, headers={"origin": PAGE, **wanted})
            assert answer.status_code == 204
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert "POST" in answer.headers["access-control-allow-methods"]
            assert answer.headers["access-control-allow-headers"] == "content-type, x-request-id"
            assert set(answer.headers.get_list("vary")) == {"origin", "access-control-request-headers"}
            refused = client.options(path, headers={"origin": "https://evil.example", **wanted})
            assert refused.status_code == 403
            assert "access-control-allow-origin" not in refused.headers
        assert client.options("/v2", headers={"origin": PAGE}).status_code == 405, "that is no preflight"


def test_with_a_star_all_origins_are_allowed_and_there_is_no_vary(ask) -> None:
    with ask("*") as client:
        answer = client.get("/v2", headers={"origin": "https://whoever.example"})
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "vary" not in answer.headers
