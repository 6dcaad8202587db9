"""Tests what callers may ask of the front's releases, and what it refuses with a sentence."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from serving.api.faults import CallFailed
from serving.protocol.errors import BadMessage
from serving.registry.log import Split
from serving.release import state
from tests.release.front import Front
from tests.release.stories import Story


def refused(call: Awaitable[Any]) -> tuple[int, str]:
    """Returns the status and the sentence of a refusal."""

    async def asked() -> tuple[int, str]:
        with pytest.raises(CallFailed) as failed:
            await call
        return failed.value.fault.status, failed.value.fault.text

    return asyncio.run(asked())


def told(call: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    async def asked() -> dict[str, Any]:
        return await call

    return asyncio.run(asked())


def front(*configured: str) -> Front:
    return Front(Story(configured=configured or ("1", "2", "3")))


def test_a_release_begins_with_its_plan_and_who_began_it() -> None:
    one = front()
    answer = told(one.start({"version": "v2", "why": "a better model", "shares": [100, 10_000]}))
    release = answer["release"]
    assert answer["route"] == {"stable": "1", "candidate": None, "share": 0}
    assert (release["version"], release["stable"], release["by"]) == ("2", "1", "ann")
    assert (release["phase"], release["exit"], release["plan"]["shares"]) == ("testing", None, [100, 10_000])


def test_an_unknown_model_is_not_found() -> None:
    assert refused(front().releases.told("nothing"))[0] == 404


def test_a_version_that_nobody_has_is_refused() -> None:
    assert refused(front().start({"version": "9"})) == (409, "there is no v9 in the registry or in the settings")


def test_a_version_without_its_approvals_is_refused_with_their_number() -> None:
    one = front("1")
    told(one.story.write(state.Draft("registered", "", {"version": "2", "digest": "ab" * 32}), "bob"))  # type: ignore[arg-type]
    assert refused(one.start({"version": "2"})) == (409, "v2 has 0 of the 1 approvals that a release needs")
    told(one.releases.consent("ranker", "approve", {"version": "v2"}, "ann"))
    assert told(one.start({"version": "abababab"}))["release"]["version"] == "2"


def test_nobody_approves_a_version_of_their_own() -> None:
    one = front("1")
    told(one.story.write(state.Draft("registered", "", {"version": "2", "digest": "ab" * 32}), "bob"))  # type: ignore[arg-type]
    status, text = refused(one.releases.consent("ranker", "approve", {"version": "2"}, "bob"))
    assert status == 409
    assert "somebody else has to approve it" in text


def test_one_release_at_a_time() -> None:
    one = front()
    told(one.start({"version": "2"}))
    assert refused(one.start({"version": "3"})) == (409, "a release of v2 is running; abort it first")


def test_the_stable_version_is_not_released_again() -> None:
    assert refused(front().start({"version": "1"})) == (409, "v1 is stable already")


def test_a_share_that_was_set_by_hand_stands_against_a_release() -> None:
    one = front()
    told(one.story.write(state.Draft("routed", "", {}, Split("1", "3", 500))))  # type: ignore[arg-type]
    assert refused(one.start({"version": "2"}))[1] == "v3 has a share that was set by hand; take it back first"


def test_what_failed_is_tried_again_only_if_asked_to() -> None:
    one = front()
    told(one.start({"version": "2"}))
    told(one.releases.change("ranker", "abort", {"why": "the wrong one"}, "ann"))
    status, text = refused(one.start({"version": "2"}))
    assert status == 409
    assert "aborted 0 s ago: the wrong one" in text
    assert told(one.start({"version": "2", "again": True}))["release"]["phase"] == "testing"


def test_a_release_is_held_resumed_and_aborted_with_reasons() -> None:
    one = front()
    told(one.start({"version": "2"}))
    held = told(one.releases.change("ranker", "hold", {"why": "lunch"}, "ann"))["release"]
    assert (held["phase"], held["exit"], held["why"]) == ("held", 4, "lunch")
    assert refused(one.releases.change("ranker", "hold", {}, "ann"))[1] == "the release is held already"
    assert told(one.releases.change("ranker", "resume", {}, "bob"))["release"]["phase"] == "testing"
    assert refused(one.releases.change("ranker", "resume", {}, "bob"))[1] == "the release is not held"
    aborted = told(one.releases.change("ranker", "abort", {}, "bob"))["release"]
    assert (aborted["phase"], aborted["exit"], aborted["why"]) == ("aborted", 3, "bob aborted it")
    assert refused(one.releases.change("ranker", "abort", {}, "bob"))[1] == "no release of 'ranker' is running"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "version"),
        ({"version": 2}, "version"),
        ({"version": "2", "why": 7}, "why"),
        ({"version": "2", "again": "yes"}, "again"),
        ({"version": "2", "shares": []}, "shares"),
        ({"version": "2", "shares": [500, 100]}, "shares"),
        ({"version": "2", "shares": [500]}, "shares"),
        ({"version": "2", "soak_s": -1}, "soak_s"),
        ({"version": "2", "soak_s": 99, "deadline_s": 9}, "deadline_s"),
        ({"version": "2", "slower": 1}, "slower"),
        ({"version": "2", "colour": "red"}, "colour"),
    ],
)
def test_a_body_that_is_no_plan_is_refused_with_its_field(body: dict[str, Any], path: str) -> None:
    async def asked() -> None:
        with pytest.raises(BadMessage) as failed:
            await front().start(body)
        assert str(failed.value).startswith(path)

    asyncio.run(asked())


def test_a_store_that_does_not_answer_is_told() -> None:
    one = front()
    one.story.store.is_down = True
    status, text = refused(one.start({"version": "2"}))
    assert status == 503
    assert text.startswith("the registry cannot be read or written")


def test_the_page_has_the_versions_with_their_approvals_and_the_history() -> None:
    one = front("1")
    told(one.story.write(state.Draft("registered", "trained again", {"version": "2", "digest": "ab" * 32}), "bob"))  # type: ignore[arg-type]
    told(one.releases.consent("ranker", "approve", {"version": "2", "why": "looks good"}, "ann"))
    told(one.start({"version": "2"}))
    page = told(one.releases.page("ranker"))
    (version,) = page["versions"]
    assert [approval["by"] for approval in version["approvals"]] == ["ann"]
    assert [entry["text"] for entry in page["history"][1:]] == ["approved v2", "registered v2 (abababababab)"]


def test_load_balancers_hear_of_an_abort_at_once() -> None:
    async def story() -> None:
        one = Front(Story())
        await one.start({"version": "2"})
        one.story.judge.silent = True
        for _ in range(8):
            await one.models["ranker"].rollout.turn()
        assert one.models["ranker"].log.route().share == 500
        await one.releases.change("ranker", "abort", {}, "ann")
        assert one.routed[-1] == "ranker"
        assert one.models["ranker"].log.route() == Split("1")

    asyncio.run(story())
