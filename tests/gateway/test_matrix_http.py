"""Tests every route of HTTP with every kind of credential. The routes are those of the OpenAPI document and of the
pages; what each answers follows from a rule, and a route without a rule fails."""

import re
from collections.abc import Iterator

import httpx
import pytest

from serving.api.http.front import FrontApp
from serving.api.pages import PAGES
from serving.api.shared_memory.cuda_driver import CudaDriver
from serving.api.shared_memory.regions import Regions
from serving.cluster.front.audit import audit_pages
from serving.cluster.front.dashboard import Dashboard
from serving.cluster.front.pages import debug_pages, metric_pages
from serving.cluster.front.releases_page import releases_pages
from serving.cluster.front.routing import RouteControl
from serving.testing.cuda_driver import build_driver
from tests.gateway.tenancy import (
    CREDENTIALS,
    HERS,
    LIVE_PAGES,
    OURS,
    SEEN,
    TALE,
    VIEW,
    Expect,
    Tenancy,
    everybody,
    feeding,
    of_a_model,
    operators,
    predicting,
    reading,
    releasing,
    telling,
    tenancy,
    with_a_key,
)

INFER = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 16], "data": [0.5] * 16}]}
ROWS = {"rows": [{"user_id": "u7", "event_ts": 0, "age": 41}]}
FEATURES = {f"/{VIEW.name}": ROWS, f"/{VIEW.name}/get": {"ids": ["u7"]}}
BODIES = {"/infer": INFER, "/generate": {"text": "a b"}, "/generate_stream": {"text": "a b"}}
# The first rule whose expression matches `VERB path` counts. Models in paths are those of acme.
RULES: tuple[tuple[str, Expect], ...] = (
    (r"GET /v2/health/(live|ready)", everybody),
    (r"GET /(|try|dashboard|audit|releases|pages/[a-z]+\.[a-z]+)", everybody),
    (r"GET /v2(/models/stats)?", with_a_key),
    (r"GET /openapi\.json", with_a_key),
    (r"POST /v2/repository/index", with_a_key),
    (r"GET /(dashboard|releases)/data", with_a_key),
    (r"GET /(metrics(/targets)?|debug/(state|stacks|routes)|audit/data)", operators),
    (r"POST /v2/models/\w+(/versions/1)?/(infer|generate|generate_stream)", predicting),
    (r"GET /v2/models/\w+(/versions/1)?(/ready|/config|/stats|/trace/setting)?", of_a_model(with_a_key)),
    (r"POST /v2/models/\w+(/versions/1)?/(trace/setting|cache/clear)", of_a_model(operators)),
    (r"POST /v2/models/\w+(/versions/1)?/feedback", telling),
    (r"GET /v2/models/\w+/(route|release)", of_a_model(with_a_key)),
    (r"POST /v2/models/\w+/(route|release(/(hold|resume|abort|approve|revoke))?)", of_a_model(releasing)),
    (r"GET /v2/features", with_a_key),
    (r"POST /v2/features/\w+/get", reading),
    (r"POST /v2/features/\w+", feeding),
    (r"POST /v2/repository/models/\w+/(load|unload)", of_a_model(operators)),
    (r"GET /v2/(system|cuda)sharedmemory(/region/\w+)?/status", with_a_key),
    (r"POST /v2/(system|cuda)sharedmemory(/region/\w+)?/(register|unregister)", operators),
    (r"GET /v2/(logging|trace/setting)", with_a_key),
    (r"POST /v2/(logging|trace/setting)", operators),
)
CHANGES = {
    "/feedback": {"id": "r1", "value": 1},
    "/v2/logging": {"log_info": True},
    "/route": {"stable": "1", "candidate": None},
    "/trace/setting": {"trace_rate": "1"},
}


def rule(verb: str, path: str) -> Expect:
    for pattern, expect in RULES:
        if re.fullmatch(pattern, f"{verb} {path}"):
            return expect
    raise AssertionError(f"no rule says who may {verb} {path}: add one to RULES")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenancy]:
    folder = tmp_path_factory.mktemp("regions")
    with tenancy(regions=Regions(folder, CudaDriver(str(build_driver(folder))), by_tenant=True)) as running:
        yield running


def routes(served: Tenancy) -> list[tuple[str, str]]:
    """Returns the verbs and paths of all routes: those that are described, and those for browsers and machines."""
    url = f"http://{served.served.http}/openapi.json"
    described = httpx.get(url, headers=CREDENTIALS["an operator"]).json()["paths"]
    found = [(verb.upper(), path) for path, verbs in described.items() for verb in verbs if verb != "parameters"]
    found += [("GET", path) for path in (*PAGES, *LIVE_PAGES, "/openapi.json", "/v2")]
    # Model routes exist with a version too, and for administrators those of other tenants are described as well.
    found += [(verb, re.sub(r"(/models/\w+)", r"\1/versions/1", path)) for verb, path in found if "/v2/models/" in path]
    names = {"{model}": OURS, "{region}": "a", "{view}": VIEW.name}
    found = [(verb, re.sub(r"\{\w+\}", lambda match: names[match[0]], path)) for verb, path in found]
    return sorted({(verb, path) for verb, path in found
                   if f"/{HERS}" not in path and "/models/stats/versions" not in path
                   and not re.search("/versions/.*/route", path)})  # fmt: skip


def body_of(verb: str, path: str) -> object:
    if verb != "POST":
        return None
    tails = {**BODIES, **CHANGES, **FEATURES}
    return next((body for tail, body in tails.items() if path.endswith(tail)), {})


def test_every_route_answers_every_credential_as_its_rule_says(served: Tenancy) -> None:
    found = routes(served)
    assert len(found) > 50
    with httpx.Client(base_url=f"http://{served.served.http}") as client:
        for verb, path in found:
            expect = rule(verb, path)
            for who, headers in CREDENTIALS.items():
                expected = expect(who)
                answer = client.request(verb, path, json=body_of(verb, path), headers=headers)
                cell = f"{verb} {path} with {who}: {answer.status_code} {answer.text[:200]}"
                if expected == 200:  # let in; an unfit body is another matter
                    assert answer.status_code in (200, 400, 404), cell
                    assert answer.status_code != 404 or "/region/" in path, cell
                else:
                    assert answer.status_code == expected, cell
                    assert answer.headers["content-type"] == "application/json", cell
                assert (answer.headers.get("www-authenticate") == "Bearer") == (expected == 401), cell


def test_every_rule_is_needed(served: Tenancy) -> None:
    found = [f"{verb} {path}" for verb, path in routes(served)]
    for pattern, _ in RULES:
        assert any(re.fullmatch(pattern, route) for route in found), pattern


def test_the_pages_of_the_matrix_are_those_of_the_front() -> None:
    nothing: object = None
    pages = {
        **metric_pages(nothing, 0),  # type: ignore[arg-type]
        **debug_pages(nothing),  # type: ignore[arg-type]
        **audit_pages(""),
        **releases_pages(None),
        **RouteControl(nothing).pages(),  # type: ignore[arg-type]
        **Dashboard.pages(Dashboard.__new__(Dashboard)),
    }
    assert set(pages) == set(LIVE_PAGES)


def test_a_page_without_an_action_cannot_be_added(served: Tenancy) -> None:
    with pytest.raises(StopIteration):
        FrontApp(object(), pages={"/secrets": object()})  # type: ignore[arg-type, dict-item]


@pytest.mark.parametrize("path", ["/v2/nothing", "/nothing", "/v2/models", "/v2/repository", "/metrics/x", "/debug"])
def test_paths_that_are_not_there_tell_nothing_without_a_key(served: Tenancy, path: str) -> None:
    url = f"http://{served.served.http}{path}"
    for who, headers in CREDENTIALS.items():
        expected = with_a_key(who)
        assert httpx.get(url, headers=headers).status_code == (404 if expected == 200 else expected), who


def test_each_tenant_is_shown_its_own_models_only(served: Tenancy) -> None:
    base = f"http://{served.served.http}"
    for who, tenant in {"own tenant": "acme", "other tenant": "globex"}.items():
        headers = CREDENTIALS[who]
        index = httpx.post(f"{base}/v2/repository/index", headers=headers).json()
        assert {model["name"] for model in index} == SEEN[tenant]
        counts = httpx.get(f"{base}/v2/models/stats", headers=headers).json()["model_stats"]
        assert {model["name"] for model in counts} == SEEN[tenant]
        for path in ("/openapi.json", "/dashboard/data", "/v2", "/v2/models/stats", "/v2/logging", "/v2/trace/setting"):
            text = httpx.get(f"{base}{path}", headers=headers).text
            shown = {name for name in (OURS, TALE, HERS) if re.search(rf"\b{name}\b", text)}
            assert shown <= SEEN[tenant], path
