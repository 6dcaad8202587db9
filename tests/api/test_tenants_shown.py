"""The tenants and their quotas on the dashboard, in a real browser: for an administrator and for a tenant's own key."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from serving.api.http.front import FrontApp
from serving.api.operations import Operations
from serving.cluster.front.dashboard import Dashboard
from serving.core.statistics import Duration, ModelStatistics
from serving.telemetry.history import EVERY_S
from serving.telemetry.quotas import QuotaCounts, QuotaReading
from serving.telemetry.recorder import Counts
from serving.telemetry.snapshot import ClusterSnapshot, ModelSnapshot
from serving.telemetry.tenants import TenantCounts
from tests.api.conftest import Server
from tests.api.keyed import ACME, ADMIN, enter, key_gate, opened
from tests.core.stories import ms
from tests.gateway.stories import bearer
from tests.telemetry.snapshots import cluster, replica

ENDED_S = 1_800_000_000.0
LOOKS = 60


def quotas(look: int, *, left: int, degraded: bool) -> QuotaReading:
    told = {"rate": look * 9, "day": 0, "concurrent": look}
    acme = QuotaCounts(admitted=look * 50, refused=told, limit=600, remaining=0, day_limit=9000, day_left=left * 10)
    beta = QuotaCounts(admitted=look * 10, refused={"rate": 0}, limit=6000, remaining=left)
    return QuotaReading(tenants={"acme": acme, "beta": beta}, degraded=degraded)


def story(look: int, name: str, *, degraded: bool) -> ModelSnapshot:
    tenants = {
        "acme": TenantCounts(requests=look * 50, device_ns=look * ms(30)),
        "beta": TenantCounts(requests=look * 10, device_ns=look * ms(10)),
    }
    fields: dict[str, Any] = {
        "uptime_ns": int((look * EVERY_S + 60) * 1e9),
        "statistics": ModelStatistics(inference_count=look * 60, success=Duration(count=look * 60)),
        "counts": Counts(tenants=tenants),
    }
    two = [replica(**fields, quotas=quotas(look, left=20, degraded=degraded)), replica(replica="def", **fields)]
    (model,) = cluster(*two, name=name).models
    return model


class Told:
    """A dashboard of two models with five minutes of data; its clock stands still. degraded: as of the last look."""

    def __init__(self) -> None:
        self.dashboard = Dashboard(self.look, lambda model: [], now=lambda: ENDED_S)
        for number in range(LOOKS):
            at_s = ENDED_S - (LOOKS - 1 - number) * EVERY_S
            self.dashboard.history.add(self.seen(number), at_s=at_s, now_ns=int(number * EVERY_S * 1e9))

    def seen(self, number: int, *, degraded: bool = False) -> ClusterSnapshot:
        names = ("scorer", "hidden")
        return ClusterSnapshot(models=tuple(story(number, name, degraded=degraded) for name in names), took_ns=1)

    async def look(self) -> ClusterSnapshot:
        return self.seen(LOOKS)

    async def entries(self) -> list[dict[str, Any]]:
        return []


@pytest.fixture(scope="module")
def told() -> Told:
    return Told()


@pytest.fixture(scope="module")
def address(told: Told) -> Iterator[str]:
    gate = key_gate(lambda tenant, model: tenant != "acme" or model != "hidden")
    app = FrontApp(Operations(told.entries, gate=gate), pages=told.dashboard.pages())
    server = Server(app, http="httptools", loop="asyncio").open()
    yield f"http://{server.address}"
    server.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    with opened(browser, f"{address}/dashboard", viewport={"width": 1400, "height": 900}) as page:
        yield page


def card(page: Any, title: str) -> Any:
    return page.locator(".card", has=page.get_by_role("heading", name=title, exact=True))


def rows(page: Any) -> dict[str, list[str]]:
    """Returns the rows of the table of tenants by their first cell."""
    told = [row.split("\t") for row in card(page, "Tenants").locator("tr").all_inner_texts()]
    return {name.strip(): [cell.strip() for cell in cells] for name, *cells in told}


def test_an_administrator_sees_all_tenants_with_what_was_refused_and_is_left(page: Any) -> None:
    enter(page, ADMIN)
    card(page, "Tenants").locator("svg").wait_for()
    shown = rows(page)
    heads = shown["tenant"]
    acme, beta = (dict(zip(heads, shown[name], strict=True)) for name in ("acme", "beta"))
    assert (acme["now, per second"], beta["now, per second"]) == ("40", "8")
    assert (acme["device time"], beta["device time"]) == ("75 %", "25 %")
    assert (acme["refused, minute"], acme["refused, day"], acme["refused, at once"]) == ("1,060", "0", "118")
    assert (acme["left now"], acme["limit, minute"]) == ("0", "600")
    assert (beta["left now"], beta["refused, minute"]) == ("40", "0")
    assert (acme["left today"], acme["limit, day"], beta["left today"]) == ("400", "9,000", "–")
    assert "refused, at once" in card(page, "Refused by quotas").locator(".legend").inner_text()
    assert page.is_visible("a[href='/audit']")


def test_a_tenant_sees_its_own_row_only_and_the_models_that_it_may_see(page: Any) -> None:
    enter(page, ACME)
    card(page, "Tenants").locator("svg").wait_for()
    assert list(rows(page)) == ["tenant", "acme"]
    own = dict(zip(rows(page)["tenant"], rows(page)["acme"], strict=True))
    assert (own["requests"], own["device time"], own["left today"]) == ("5,900", "3.54 s", "400")
    assert "share" not in own
    titles = page.locator(".card h3").all_inner_texts()
    assert titles == ["Tenants", "Refused by quotas", "Replicas"], "the numbers of all are for those who see all"
    assert "20 requests per second of yours" in page.inner_text("#verdict")
    assert page.url.endswith("#scorer"), "the sum of all models is for those who see all"
    content = page.inner_text("main")
    assert "beta" not in content
    assert "hidden" not in content


def test_a_tenant_is_not_even_sent_what_it_may_not_see(address: str) -> None:
    for query in ("", "?model=scorer", "?model=hidden"):
        answer = httpx.get(f"{address}/dashboard/data{query}", headers={"authorization": bearer(ACME)})
        assert answer.status_code == 200
        assert "beta" not in answer.text
        assert "hidden" not in answer.text
        assert all(point["rows"] == 0 and not point["ended"] for point in answer.json()["points"])
    assert answer.json()["points"] == []
    assert "beta" in httpx.get(f"{address}/dashboard/data", headers={"authorization": bearer(ADMIN)}).text
    assert httpx.get(f"{address}/dashboard/data").status_code == 401


def test_a_store_of_quotas_that_does_not_answer_is_said_at_the_top(page: Any, told: Told) -> None:
    enter(page, ADMIN)
    page.wait_for_selector("svg.chart")
    assert "degraded" not in page.inner_text("#verdict")
    told.dashboard.history.latest = told.seen(LOOKS - 1, degraded=True)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.get_by_text("Quotas are degraded").wait_for()
    assert "2 of 2 replicas keep to their own part of each limit" in page.inner_text("#verdict")
    told.dashboard.history.latest = told.seen(LOOKS - 1)


def test_while_the_form_is_shown_the_page_asks_for_nothing(page: Any) -> None:
    page.wait_for_selector("form.ask")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    enter(page, ADMIN)
    page.wait_for_selector("svg.chart")
    assert [address.partition("?")[0].rpartition("/")[2] for address in asked] == ["v2", "data"]


@pytest.mark.parametrize("width", [320, 768])
def test_nothing_sticks_out_on_a_narrow_screen(page: Any, width: int) -> None:
    enter(page, ADMIN)
    page.set_viewport_size({"width": width, "height": 800})
    page.wait_for_selector("svg.chart")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
