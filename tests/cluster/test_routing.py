"""The front's routing table: changes, what other writers do, stores that fail, and what HAProxy is told."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from serving.api.faults import CallFailed
from serving.cluster.front.routing import WITHOUT_HAPROXY, RouteControl
from serving.protocol.errors import BadMessage
from serving.registry.log import ModelLog, Split, written
from serving.store.place import NoState
from serving.testing.clock import ManualClock
from serving.testing.objects import MemoryObjects
from serving.traffic.routes import Route

SERVED = {"ranker": {"1": "ranker", "2": "ranker@2"}, "alone": {"4": "alone"}}
NONE_YET = "ranker ranker|ranker|0\n"


def control(store: MemoryObjects, **more: Any) -> RouteControl:
    made = RouteControl(partial(ModelLog, store), calendar=ManualClock(10**18), **more)
    made.serve(SERVED)
    return made


def run(story: Callable[[RouteControl], Awaitable[None]], store: MemoryObjects | None = None, **more: Any) -> None:
    async def told() -> None:
        await story(control(store or MemoryObjects(), **more))

    asyncio.run(told())


async def look_and_set(routes: RouteControl) -> None:
    await routes.look()
    await routes.set("ranker", stable="2", by="ann")


def body(news: str) -> str:
    return news.partition("\n")[2].removesuffix("# end\n")


def refused(failed: "pytest.ExceptionInfo[CallFailed]") -> tuple[int, str]:
    return failed.value.fault.status, failed.value.fault.text


def test_a_change_is_a_record_and_in_force_at_once() -> None:
    store = MemoryObjects()

    async def story(routes: RouteControl) -> None:
        await routes.look()
        route = await routes.set("ranker", stable="1", candidate="2", share=500, by="ann", why="a try")
        assert route == Route("ranker", SERVED["ranker"], "1", "2", 500)
        (record,) = routes.log("ranker").records
        assert (record.kind, record.by, record.why, record.split) == ("routed", "ann", "a try", Split("1", "2", 500))
        assert body(await routes.news("")) == "ranker ranker|ranker@2|500\n"

    run(story, store)
    assert list(store.objects) == ["models/ranker/log/000000000001.json"]


def test_a_record_names_the_version_that_was_stable_before_it() -> None:
    async def story(routes: RouteControl) -> None:
        await routes.look()
        await routes.set("ranker", stable="2", by="ann")
        await routes.set("ranker", stable="2", candidate="1", share=5, by="ann")
        assert [record.text("before") for record in routes.log("ranker").records] == ["1", ""]

    run(story, MemoryObjects())


def test_another_process_goes_on_with_what_the_log_says() -> None:
    store = MemoryObjects()

    async def first(routes: RouteControl) -> None:
        await routes.set("ranker", stable="2", by="ann")

    async def second(routes: RouteControl) -> None:
        assert routes.told("ranker")["stable"] == "1", "until it has read the log, which HAProxy is not told"
        with pytest.raises(CallFailed, match="routes of ranker are not known yet"):
            await routes.news("")
        await routes.look()
        assert routes.told("ranker") == {
            "model": "ranker", "versions": ["1", "2"], "stable": "2", "candidate": None, "share": 0
        }  # fmt: skip

    run(first, store)
    run(second, store)


def test_records_of_other_writers_are_followed() -> None:
    store = MemoryObjects()

    async def story(routes: RouteControl) -> None:
        await routes.look()
        other = ModelLog(store, "ranker")
        record = written("promoted", now_s=1, by="a release", nonce="n", split=Split("2"))
        await other.append(lambda _: record)
        await routes.look()
        assert body(await routes.news("")) == "ranker ranker@2|ranker@2|0\n"

    run(story, store)


def test_a_version_that_is_gone_gets_no_traffic_and_one_that_comes_back_gets_its_own_again() -> None:
    async def story(routes: RouteControl) -> None:
        await routes.set("ranker", stable="2", candidate="1", share=100, by="ann")
        routes.serve({"ranker": {"1": "ranker", "3": "ranker@3"}})
        assert body(await routes.news("")) == NONE_YET
        routes.serve(SERVED)
        assert body(await routes.news("")) == "ranker ranker@2|ranker|100\n"

    run(story)


def test_who_knows_the_news_waits_for_the_next() -> None:
    async def story(routes: RouteControl) -> None:
        await routes.look()
        name = (await routes.news("")).split()[1]
        waiting = asyncio.ensure_future(routes.news(name))
        await asyncio.sleep(0)
        assert not waiting.done()
        await routes.set("ranker", stable="2", by="ann")
        assert body(await waiting) == "ranker ranker@2|ranker@2|0\n"

    run(story)


@pytest.mark.parametrize("fails_at", range(5))
def test_a_store_that_fails_leaves_the_route_as_the_log_has_it(fails_at: int) -> None:
    store = MemoryObjects(fails_at=frozenset([fails_at]))

    async def story(routes: RouteControl) -> None:
        with pytest.raises(CallFailed, match=r"routes cannot be read|route may be unchanged"):
            await look_and_set(routes)
        await routes.look()
        written = bool(store.objects)
        assert routes.route("ranker").stable == ("2" if written else "1")
        assert body(await routes.news("")) == ("ranker ranker@2|ranker@2|0\n" if written else NONE_YET)

    run(story, store)


def test_while_the_store_is_down_routes_stay_as_they_are() -> None:
    store = MemoryObjects()

    async def story(routes: RouteControl) -> None:
        await routes.set("ranker", stable="2", by="ann")
        store.is_down = True
        with pytest.raises(CallFailed) as failed:
            await routes.look()
        assert refused(failed)[0] == 503
        assert body(await routes.news("")) == "ranker ranker@2|ranker@2|0\n"

    run(story, store)


def test_without_haproxy_the_first_version_answers_and_shares_are_refused_with_a_sentence() -> None:
    async def story(routes: RouteControl) -> None:
        for stable, candidate, share in (("2", None, 0), ("1", "2", 1)):
            with pytest.raises(CallFailed) as failed:
                await routes.set("ranker", stable=stable, candidate=candidate, share=share, by="ann")
            assert refused(failed) == (400, WITHOUT_HAPROXY)
        assert routes.route("ranker").stable == "1"

    run(story, splits=False)


def test_without_a_place_for_routes_the_first_version_answers() -> None:
    def nowhere(model: str) -> ModelLog:
        raise NoState("this user has no home folder")

    async def story() -> None:
        routes = RouteControl(nowhere)
        routes.serve(SERVED)
        with pytest.raises(CallFailed, match="no home folder"):
            await routes.look()
        assert body(await routes.news("")) == NONE_YET

    asyncio.run(story())


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"stable": "2"}, ("2", None, 0)),
        ({"candidate": "2", "share": "5%"}, ("1", "2", 500)),
        ({"candidate": "2"}, ("1", "2", 0)),
        ({"stable": "1", "candidate": "2", "share": 10_000, "why": "all of it", "by": "ann"}, ("1", "2", 10_000)),
    ],
)
def test_a_request_changes_what_it_names(wanted: dict[str, Any], expected: tuple[object, ...]) -> None:
    async def story(routes: RouteControl) -> None:
        told = await routes.change("ranker", wanted, "")
        assert (told["stable"], told["candidate"], told["share"]) == expected

    run(story)


def test_what_a_request_leaves_out_stays_but_a_promoted_candidate_is_none_any_more() -> None:
    async def story(routes: RouteControl) -> None:
        await routes.change("ranker", {"candidate": "2", "share": 500}, "ann")
        assert (await routes.change("ranker", {"share": "10%"}, "ann"))["share"] == 1000
        told = await routes.change("ranker", {"stable": "2"}, "ann")
        assert (told["stable"], told["candidate"], told["share"]) == ("2", None, 0)

    run(story)


@pytest.mark.parametrize(
    "wanted",
    [
        {"share": 0.5},
        {"share": "half"},
        {"share": 1},
        {"stable": "3"},
        {"stable": 2},
        {"candidate": ["2"]},
        {"why": 1},
        {"why": "a\nb"},
        {"versions": []},
    ],
)
def test_a_request_that_makes_no_sense_changes_nothing(wanted: dict[str, Any]) -> None:
    async def story(routes: RouteControl) -> None:
        with pytest.raises((BadMessage, CallFailed)):
            await routes.change("ranker", wanted, "")
        assert not routes.log("ranker").records

    run(story)


def test_a_model_that_is_not_served_has_no_route() -> None:
    async def story(routes: RouteControl) -> None:
        with pytest.raises(CallFailed) as failed:
            routes.told("nobody")
        assert refused(failed)[0] == 404

    run(story)
