"""The dashboard in a real browser, with an hour of generated data."""

import json
import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from serving.api.http.front import FrontApp
from serving.api.operations import Operations
from serving.cluster.front.dashboard import Dashboard
from serving.core.statistics import Duration, ModelStatistics
from serving.telemetry.history import EVERY_S
from serving.telemetry.recorder import Counts
from serving.telemetry.snapshot import ClusterSnapshot, GpuReading, ModelSnapshot
from serving.telemetry.tenants import TenantCounts
from tests.api.conftest import Server
from tests.core.stories import ms
from tests.telemetry.snapshots import cluster, replica

LOOKS = 720
WHY = "requests wait 140 ms, more than 100 ms"


def story(look: int, name: str, load: float, *, price: float | None = None, gpus: bool = False) -> ModelSnapshot:
    """Returns a model's snapshot number `look`. Its load rises and falls, and for some time it rejects requests."""
    rate = [load * (1.2 + math.sin(each / 60)) for each in range(look)]
    completed, refused = int(sum(rate) * EVERY_S), 40 * max(0, min(look, 420) - 400)
    counts = Counts(
        ended=Counter({("rejected", "queue_full"): refused, ("failed", "invalid_input"): look}),
        cuts=Counter(FULL=completed // 40, IDLE=completed // 30, LANE_READY=completed // 20),
        cells_asked=completed * 8,
        cells_computed=completed * 9,
        tenants={
            "acme": TenantCounts(requests=completed * 3 // 5, device_ns=completed * ms(3)),
            "globex": TenantCounts(requests=completed // 4, device_ns=completed * ms(1)),
            "none": TenantCounts(requests=completed // 7, device_ns=completed * ms(0.5)),
        },
    )
    for index, part in ((4, 0.5), (5, 0.3), (6, 0.15), (8, 0.05)):
        counts.request_ns.counts[index] = int(completed * part)
    counts.batch_ns.add(sum(min(0.9, each / load / 3) for each in rate) * EVERY_S * 1e9)
    fields: dict[str, Any] = {
        "uptime_ns": int((look * EVERY_S + 60) * 1e9),
        "price_per_hour": price,
        "statistics": ModelStatistics(
            inference_count=completed * 2, execution_count=completed // 4, success=Duration(count=completed)
        ),
        "counts": counts,
        "cpu_ns": int(sum(min(1.0, each / load / 2) for each in rate) * EVERY_S * 1e9),
        "memory_bytes": 700_000_000 + look * 10_000,
        "predictions": {"daisy": completed // 2, "tabby cat": completed // 3, "espresso": completed // 9},
        "queued": int(rate[-1] % 7) if rate else 0,
    }
    if gpus:
        fields["gpus"] = (
            GpuReading(uuid="GPU-1", busy_ratio=0.6, memory_used_bytes=30 << 30, memory_total_bytes=80 << 30),
        )
    wanted = 3 if 400 < look < 560 else 2
    (model,) = cluster(replica(**fields), name=name, running=3 if 410 < look < 560 else 2, wanted=wanted).models
    return model


class Hour:
    """A dashboard with an hour of data. models: returns the models' snapshots by the number of the look."""

    def __init__(self, **more: Any) -> None:
        self.models = lambda look: (story(look, "scorer", 40, **more), story(look, "embedder", 15, **more))
        self.looks = 0
        ended = (
            time.time()
        )  # its clock stands still, so that "the last minute" is that of the data also on a slow machine
        at = ended - LOOKS * EVERY_S
        self.dashboard = Dashboard(self.snapshot, self.decisions, name="headway", now=lambda: ended)
        for look in range(LOOKS):
            self.dashboard.history.add(self.seen(), at_s=at + look * EVERY_S, now_ns=int(look * EVERY_S * 1e9))

    def seen(self) -> ClusterSnapshot:
        self.looks += 1
        return ClusterSnapshot(models=self.models(self.looks - 1), took_ns=1)

    async def snapshot(self) -> ClusterSnapshot:
        return self.seen()

    def decisions(self, model: str) -> list[dict[str, Any]]:
        decision = {"at": time.time() - 1600, "current": 2, "wanted": 3, "cause": "wait", "reason": WHY}
        return [decision] if model == "scorer" else []

    async def entries(self) -> list[dict[str, Any]]:
        return []


@pytest.fixture(scope="module")
def hour() -> Hour:
    return Hour(price=0.9, gpus=True)


@pytest.fixture(scope="module")
def address(hour: Hour) -> Iterator[str]:
    app = FrontApp(Operations(hour.entries), pages=hour.dashboard.pages())
    server = Server(app, http="httptools", loop="asyncio").open()
    yield f"http://{server.address}"
    server.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """A browser page that shows the dashboard. An error in its scripts fails the test."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(15_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    page.goto(f"{address}/dashboard")
    page.wait_for_selector("svg.chart")
    yield page
    page.close()
    assert not problems


def card(page: Any, title: str) -> Any:
    return page.locator(".card", has=page.get_by_role("heading", name=title, exact=True))


def titles(page: Any) -> list[str]:
    return list(page.locator("h3").all_inner_texts())


def test_one_sentence_says_how_it_is(page: Any) -> None:
    said = page.inner_text("#verdict")
    assert said.startswith("All 2 models are ready. In the last minute:")
    assert "requests per second, 95 % of the answers within" in said
    assert said.endswith("none failed.")


def test_a_model_that_is_down_and_replicas_that_say_nothing_are_said_first(page: Any, hour: Hour) -> None:
    scorer, embedder = hour.models(LOOKS)
    down = replace(scorer, state="UNAVAILABLE", reason="its factory raised KeyError: 'weights'")
    hour.dashboard.history.latest = ClusterSnapshot(models=(down, replace(embedder, silent=1)), took_ns=1)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.get_by_text("scorer is unavailable: its factory raised KeyError: 'weights'.").wait_for()
    assert "bad" in str(page.get_attribute("#verdict", "class"))
    assert "embedder: 1 of its replicas send no metrics." in page.inner_text("#verdict")
    hour.dashboard.history.latest = ClusterSnapshot(models=(scorer, embedder), took_ns=1)


def test_every_row_is_there_with_its_numbers(page: Any) -> None:
    assert page.locator("h2").all_inner_texts() == ["Traffic and health", "Model", "Machines", "Cost"]
    assert card(page, "Padding waste").locator(".figure").inner_text().strip() == "11.1 %"
    assert round(float(card(page, "Batch size").locator(".figure").inner_text()), 1) == 8  # counts are whole: 8.01, say
    assert card(page, "GPU memory").locator(".figure").inner_text() == "30 GiB of 80 GiB"
    card(page, "Availability").locator(".figure.bad").wait_for()  # 1600 refusals in this hour
    assert "acme" in card(page, "Tenants").inner_text()
    assert WHY in card(page, "Scaling decisions").inner_text()
    assert card(page, "Per day").locator(".figure").inner_text().strip() == "43.2"


def test_one_model_is_shown_alone_and_the_address_names_it(page: Any) -> None:
    rate = card(page, "Requests per second").locator(".figure")
    together = rate.inner_text()
    page.locator("input[value=embedder]").check(force=True)
    page.get_by_text("In the last minute for embedder").wait_for()
    assert rate.inner_text() != together
    assert page.url.endswith("/dashboard#embedder")
    assert "Scaling decisions" not in titles(page)


def test_of_one_model_with_labels_it_shows_what_the_model_says(page: Any) -> None:
    assert "Predictions" not in titles(page)
    page.locator("input[value=scorer]").check(force=True)
    said = card(page, "Predictions")
    said.wait_for()
    assert [row.split("\t")[0] for row in said.locator("tr").all_inner_texts()] == [
        "class",
        "daisy",
        "tabby cat",
        "espresso",
    ]


def test_pointing_at_a_chart_says_the_values_of_that_time(page: Any) -> None:
    picture = card(page, "Latency, p95").locator("svg")
    picture.hover(position={"x": 100, "y": 50})
    legend = card(page, "Latency, p95").locator(".legend").inner_text()
    assert "p95 " in legend
    assert "ms" in legend
    assert ":" in legend


def test_the_range_can_be_shorter(page: Any) -> None:
    page.locator("input[value='300']").check(force=True)
    assert "5 min ago" in card(page, "Waiting").locator("svg").text_content()
    assert card(page, "Availability").locator(".figure").inner_text().strip() == "100.00 %"


@pytest.mark.parametrize("width", [320, 390, 768])
def test_nothing_sticks_out_on_a_narrow_screen(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_what_does_not_exist_is_not_shown(browser: Any) -> None:
    bare = Hour()
    server = Server(
        FrontApp(Operations(bare.entries), pages=bare.dashboard.pages()), http="httptools", loop="asyncio"
    ).open()
    page = browser.new_page()
    page.goto(f"http://{server.address}/dashboard")
    page.wait_for_selector("svg.chart")
    assert "Cost" not in page.locator("h2").all_inner_texts()
    assert not {"GPU", "GPU memory", "Per day"} & set(titles(page))
    server.close()
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.get_by_text("the numbers shown are old").wait_for()
    page.close()


def test_a_later_request_gets_only_new_points(address: str) -> None:
    whole = httpx.get(f"{address}/dashboard/data").json()
    assert len(whole["points"]) == LOOKS - 1
    assert [model["name"] for model in whole["models"]] == ["scorer", "embedder"]
    since = whole["points"][-3]["at"]
    assert len(httpx.get(f"{address}/dashboard/data?model=scorer&since={since}").json()["points"]) == 2
    assert httpx.get(f"{address}/dashboard/data?model=nobody").json()["points"] == []
    assert len(httpx.get(f"{address}/dashboard/data?since=yesterday").json()["points"]) == LOOKS - 1


def test_an_hour_of_a_model_is_some_hundred_kilobytes(hour: Hour) -> None:
    assert len(json.dumps(hour.dashboard.history.points("scorer"))) < 500_000
