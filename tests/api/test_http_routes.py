"""The paths under which the application can be mounted, and its parts that need no server."""

import asyncio
import json
from urllib.parse import unquote

import pytest

from serving.api.entry import ModelEntry
from serving.api.http.app import ModelApp
from serving.api.http.disconnect import DisconnectWatch
from serving.api.http.front import FrontApp
from serving.api.operations import Operations
from serving.core.outcome import Cancelled
from serving.testing.backend import EchoBackend
from tests.api.conftest import model

APP = ModelApp(model("m", ("x", "FP32", (-1, -1)), backend=EchoBackend(), version="3"))


def get(app, path: str, root_path: str = "", method: str = "GET") -> tuple[int, object]:
    sent: list[dict] = []

    async def receive():
        return {"type": "http.request", "body": b""}

    async def send(event):
        sent.append(event)

    scope = {"type": "http", "method": method, "root_path": root_path, "headers": []}
    scope |= {"path": unquote(path), "raw_path": path.encode()}  # as servers do
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


@pytest.mark.parametrize(
    ("path", "root_path"),
    [
        ("/v2/models/m/config", ""),
        ("/v2/models/m/config/", ""),
        ("/v2/models/m/versions/3/config", ""),
        ("/v2/models/m/config", "/v2/models/m"),
        ("/config", "/v2/models/m"),
        ("/versions/3/config", "/v2/models/m"),
        ("/edge/v2/models/m/config", "/edge"),
        ("/v2/models/m/config", "/edge"),
        ("/edge/v2/models/m/config", ""),
    ],
)
def test_the_route_is_found_wherever_the_application_is_mounted(path: str, root_path: str) -> None:
    status, config = get(APP, path, root_path)
    assert (status, config["name"]) == (200, "m")


def test_the_mount_point_itself_is_the_models_metadata() -> None:
    assert get(APP, "/", "/v2/models/m")[1]["versions"] == ["3"]
    assert get(APP, "", "/v2/models/m")[1]["versions"] == ["3"]


@pytest.mark.parametrize(
    "path",
    ["/v2/models/a%2Db", "/v2/models/a%2db/infer", "/v2/m%6Fdels/a-b/ready", "/v2/models/%61-b/versions/1/stats"],
)
def test_a_name_with_percent_escapes_that_never_finds_its_model_is_told_how_it_is_spelt(path: str) -> None:
    """Load balancers compare paths without decoding them, so the front gets the request although the model is ready. A
    real Triton does not decode names either and answers 404 too."""

    async def models() -> list[ModelEntry]:
        return [ModelEntry(name="a-b", version="1", state="READY"), ModelEntry(name="c", version="1", state="LOADING")]

    front = FrontApp(Operations(models))
    status, answer = get(front, path)
    assert status == 404
    assert answer["error"].endswith(f"'{path}' is not decoded; use the path {unquote(path)}")
    assert get(front, "/v2/models/%63")[0] == 404  # waiting would not help
    assert get(front, "/v2/models/c/infer%20")[0] == 503
    assert get(front, "/v2/models/a-b")[0] == 503
    assert "unknown model: 'd'" in get(front, "/v2/models/%64")[1]["error"]


@pytest.mark.parametrize("path", ["/v2/models/%6D", "/v2/models/m/con%66ig", "/v2/m%6Fdels/m/versions/%33"])
def test_percent_escapes_are_decoded_where_the_model_is_in_the_same_process(path: str) -> None:
    async def models() -> list[ModelEntry]:
        return [ModelEntry(name="m", version="3", state="READY")]

    assert get(APP, path)[1]["name"] == "m"
    assert get(FrontApp(Operations(models), apps={"m": APP}), path)[1]["name"] == "m"


def test_another_models_path_is_not_ours() -> None:
    assert get(APP, "/v2/models/other/config")[0] == 404
    assert get(APP, "/infer", "", "POST")[0] == 404


def test_a_known_model_that_is_not_reachable_is_not_ready_rather_than_unknown() -> None:
    async def models():
        return [ModelEntry(name=name, version="1", state=state) for name, state in states.items()]

    states = {"late": "LOADING", "gone": "READY"}
    front = FrontApp(Operations(models))
    assert get(front, "/v2/models/late/infer", method="POST") == (503, {"error": "Model 'late' is loading"})
    assert get(front, "/v2/models/gone") == (503, {"error": "Model 'gone' is not reachable"})
    assert get(front, "/v2/health/ready") == (503, {"error": "not ready: late"})
    assert get(FrontApp(Operations(models, strict_readiness=False)), "/v2/health/ready")[0] == 200
    assert get(front, "/v2/models/stats") == (200, {"model_stats": []})
    assert get(front, "/edge/v2", "/edge")[1]["name"] == "headway"


@pytest.mark.parametrize("path", ["/v2/models/m/route/x", "/v2/models/m/release/x/y"])
def test_a_path_below_those_of_the_front_is_unknown_and_its_model_not_called_unreachable(path: str) -> None:
    async def models() -> list[ModelEntry]:
        return [ModelEntry(name="m", version="1", state="READY")]

    assert get(FrontApp(Operations(models)), path) == (404, {"error": f"no such path: {path}"})


def test_a_version_has_no_route_of_its_own_and_does_not_say_that_there_is_no_haproxy() -> None:
    assert get(APP, "/v2/models/m/route")[0] == 501
    assert get(APP, "/v2/models/m/versions/3/route") == (404, {"error": "no such path: /v2/models/m/versions/3/route"})


def test_a_provider_that_fails_is_an_internal_error() -> None:
    async def models():
        raise RuntimeError("the cluster is away")

    front = FrontApp(Operations(models, counts=models))
    assert get(front, "/v2/models/stats") == (500, {"error": "internal error"})
    assert get(front, "/v2/health/ready") == (500, {"error": "internal error"})


def test_a_page_of_the_front_is_read_with_get_and_told_the_query() -> None:
    async def models() -> list[dict[str, object]]:
        return []

    async def page(query: str, sees: object) -> tuple[str, bytes]:
        return "application/json", json.dumps({"asked": query}).encode()

    front = FrontApp(Operations(models), pages={"/metrics": page})
    assert get(front, "/metrics") == (200, {"asked": ""})
    assert get(front, "/metrics", method="POST")[0] == 405
    assert get(front, "/metrics/none")[0] == 404


def test_lifespan_events_are_acknowledged() -> None:
    events = iter(["lifespan.startup", "lifespan.shutdown"])
    sent: list[str] = []

    async def receive():
        return {"type": next(events)}

    async def send(event):
        sent.append(event["type"])

    asyncio.run(APP({"type": "lifespan"}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_a_cancellation_that_is_not_the_clients_goes_on_upwards() -> None:
    async def story() -> None:
        watch, never = DisconnectWatch(0.001), asyncio.Event()

        async def receive():
            await never.wait()

        task = asyncio.ensure_future(watch.outcome(never.wait(), receive))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(story())


def test_a_server_that_repeats_the_end_of_the_body_does_not_withdraw_anything() -> None:
    async def story() -> None:
        watch, calls, answered = DisconnectWatch(0.001), [], asyncio.Event()

        async def receive():
            calls.append(1)
            if len(calls) == 3:
                answered.set()
                await asyncio.Event().wait()
            return {"type": "http.request", "body": b"", "more_body": False}

        async def outcome():
            await answered.wait()
            return Cancelled()

        assert await asyncio.create_task(watch.outcome(outcome(), receive)) == Cancelled()

    asyncio.run(story())
