"""The releases page, in a real browser: the running release as a picture, approvals, and what a visitor may do."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from serving.api.admission.local_gate import LocalGate
from serving.api.entry import ModelEntry
from serving.api.http.front import FrontApp
from serving.api.operations import Operations
from serving.cluster.front.releases_page import releases_pages
from serving.registry.log import Split
from serving.release.plan import Plan
from serving.release.state import Draft
from serving.traffic.routes import SHARES
from tests.api.conftest import Server
from tests.api.keyed import ACME, ADMIN, beside, enter, key_gate, opened
from tests.release.counts import Judged, Traffic
from tests.release.front import Front
from tests.release.stories import S

PLAN = Plan(soak_s=60.0, deadline_s=3600.0)
WORDS = "trained on the week of the 22nd"


async def entries() -> list[ModelEntry]:
    return []


class Shop:
    """A server with the model `ranker`: version 1 is stable, 2 registered by bob and approved by ann, 3 by nobody."""

    def __init__(self, *names: str, gate: Any = None, **traffic: float) -> None:
        self.story = Judged(PLAN, configured=("1",))
        self.story.with_traffic(Traffic(**{"error": 0.01} | traffic))  # type: ignore[arg-type]
        self.front = Front(self.story, *names)
        operations = Operations(entries, gate=gate or LocalGate(), releases=self.front.releases)
        pages = releases_pages(self.front.releases, name="shop")
        self.server = Server(FrontApp(operations, pages=pages), http="httptools", loop="asyncio")

    async def filled(self) -> None:
        for number, digest, why in (("2", "ab", WORDS), ("3", "cd", "")):
            await self.story.write(Draft("registered", why, {"version": number, "digest": digest * 32}), "user:bob")
        await self.story.write(Draft("approved", "looks good", {"version": "2"}), "ann")

    async def released(self, seconds: int) -> None:
        """Lets version 2 be released for so long."""
        await self.front.start({"version": "2", "why": "better by a tenth", **PLAN.told()})
        model = self.front.models["ranker"]
        for _ in range(seconds):
            await model.rollout.turn()
            self.story.traffic.share = model.log.route().share / SHARES
            self.story.clock.advance(S)


def done(call: Callable[[], Awaitable[None]]) -> None:
    async def work() -> None:
        await call()

    beside(lambda: asyncio.run(work()))


@contextmanager
def shop(*, seconds: int = 0, filled: bool = True, **more: Any) -> Iterator[tuple[Shop, str]]:
    """Runs the server; version 2 is released for `seconds`."""
    one = Shop(*more.pop("names", ()), **more)
    if filled:
        done(one.filled)
    if seconds:
        done(lambda: one.released(seconds))
    one.server.open()
    try:
        yield one, f"http://{one.server.address}/releases"
    finally:
        one.server.close()


@contextmanager
def shown(browser: Any, **more: Any) -> Iterator[tuple[Shop, Any]]:
    looks = more.pop("looks", {})
    with shop(**more) as (one, address), opened(browser, address, **looks) as page:
        yield one, page


def test_a_running_release_is_shown_with_both_versions_and_the_evidence(browser: Any) -> None:
    with shown(browser, seconds=120) as (_, page):
        page.get_by_text("Version 2 is being released: it has 25 % of the requests").wait_for()
        assert page.locator(".steps .now").inner_text().split() == ["25", "%", "now"]
        assert page.locator(".steps .done").count() == 3
        assert page.get_by_role("img", name="version 2 answers 25 % of the requests, version 1 the others").count() == 1
        assert page.get_by_role("img", name="Failed requests").count() == 1
        assert "limit 5 %" in page.locator("#arms").inner_text()
        assert page.locator("#findings details").count() >= 4
        page.locator("#findings summary").first.focus()
        page.keyboard.press("Enter")
        assert "evidence that" in page.locator("#findings details[open]").inner_text()


def test_a_release_that_was_rolled_back_says_why(browser: Any) -> None:
    with shown(browser, seconds=60, error=0.2) as (_, page):
        page.get_by_text("Version 2 was rolled back").wait_for()
        assert "requests computed by the candidate failed" in page.inner_text("#waits")
        assert page.locator(".steps .bad").inner_text().split()[-2:] == ["ended", "here"]
        assert "Rolled v2 back; v1 answers" in page.locator(".history .bad").first.inner_text()
        assert page.is_hidden("#actions")


def test_a_visitor_on_the_servers_machine_holds_and_aborts_with_a_name_and_a_reason(browser: Any) -> None:
    with shown(browser, seconds=30) as (one, page):
        page.get_by_role("button", name="Hold").click()
        page.get_by_label("Your name").fill("Ann")
        page.get_by_label("Reason").fill("a customer called")
        page.keyboard.press("Enter")
        page.get_by_text("Version 2 is held").wait_for()
        assert page.inner_text("#waits") == "a customer called"
        page.get_by_role("button", name="Abort").click()
        assert page.get_by_label("Your name").input_value() == "Ann"
        page.locator("#ask-yes").click()
        page.get_by_text("Version 2 was aborted").wait_for()
        assert one.front.models["ranker"].log.route() == Split("1")
        assert "Ann" in page.locator(".history li").first.inner_text()


def test_a_version_is_approved_with_a_button(browser: Any) -> None:
    with shown(browser) as (_, page):
        page.get_by_role("button", name="Approve v3").click()
        page.get_by_label("Your name").fill("bob")
        page.locator("#ask-yes").click()
        page.get_by_text("somebody else has to approve it").wait_for()  # bob has registered it
        page.get_by_label("Your name").fill("eve")
        page.locator("#ask-yes").click()
        page.locator("tbody tr", has_text="v3").get_by_text("eve").wait_for()
        assert page.locator("tbody tr", has_text="v3").get_by_text("may be released").count() == 1


def test_who_may_not_approve_or_release_has_no_buttons(browser: Any) -> None:
    with shown(browser, seconds=30, gate=key_gate()) as (_, page):
        enter(page, ACME)
        page.get_by_text("Version 2 is being released").wait_for()
        assert page.is_hidden("#actions")
        assert page.get_by_role("button", name="Approve").count() == 0


def test_a_tenant_is_shown_only_models_that_it_sees(browser: Any) -> None:
    gate = key_gate(lambda tenant, model: model == "other")
    with shown(browser, names=("ranker", "other"), gate=gate) as (_, page):
        enter(page, ACME)
        page.get_by_text("There has been no release yet").wait_for()
        assert "ranker" not in page.inner_text("main")
        assert page.is_hidden("#models")


def test_models_are_chosen_by_tabs_and_the_address_remembers(browser: Any) -> None:
    with shown(browser, names=("ranker", "other"), gate=key_gate()) as (_, page):
        enter(page, ADMIN)
        page.locator("tbody tr").first.wait_for()
        page.get_by_text("other", exact=True).click()
        page.get_by_text("The registry has no version of other yet").wait_for()
        assert page.url.endswith("?model=other")


def test_an_empty_registry_says_what_would_appear(browser: Any) -> None:
    with shown(browser, filled=False) as (_, page):
        page.get_by_text("The registry has no version of ranker yet").wait_for()
        assert "Nothing has happened yet" in page.inner_text("#history")


def test_what_a_caller_wrote_is_shown_as_text(browser: Any) -> None:
    with shown(browser) as (one, page):
        page.locator("tbody tr").first.wait_for()
        record = Draft("registered", "<img src=x onerror=alert(1)>", {"version": "4", "digest": "ef" * 32})
        done(lambda: one.story.write(record, "<b>eve</b>"))
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        page.locator("tbody tr", has_text="v4").wait_for()
        assert "<img src=x" in page.inner_text("#history")
        assert page.locator("main img").count() == 0


@pytest.mark.parametrize("width", [320, 390, 768])
def test_nothing_sticks_out_on_a_narrow_screen(browser: Any, width: int) -> None:
    with shown(browser, seconds=90, looks={"viewport": {"width": width, "height": 800}}) as (_, page):
        page.get_by_text("is being released").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
