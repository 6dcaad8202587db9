"""Tests how a release is driven: step by step from the log, killed anywhere, held, aborted, overtaken."""

import asyncio

import pytest

from serving.registry.log import Split
from serving.release import state
from serving.release.deciding import DRAIN_S, Decision
from serving.release.plan import Plan
from serving.release.state import Phase
from serving.testing.releasing import Faults
from tests.release.stories import PLAN, S, Story

ALL = [("1", "2", 500), ("1", "2", 2500), ("1", "2", 5000), ("1", "2", 10_000), ("2", None, 0)]


def test_a_good_version_takes_over_step_by_step() -> None:
    async def story() -> None:
        told = Story()
        await told.start()
        await told.turns()
        assert await told.routes() == ALL
        release = await told.release()
        assert release.phase is Phase.PROMOTED
        assert told.trials.made_of == ["smoke", "shadow"]
        assert told.judge.cleared[-1] == 3
        assert {"1", "2"} <= told.versions.running, "the version before stays for a quick rollback"

    asyncio.run(story())


def test_no_step_is_shorter_than_its_soak() -> None:
    async def story() -> None:
        told = Story(Plan(soak_s=30.0, shares=(5000, 10_000)))
        await told.start()
        await told.turns(100)
        events = {event.kind: event.at_s for event in (await told.release()).events if event.share}
        steps = [event.at_s for event in (await told.release()).events if event.kind == "step"]
        assert steps[1] - steps[0] >= 30
        assert events
        assert (await told.release()).ended_s - steps[1] >= 30  # type: ignore[operator]

    asyncio.run(story())


@pytest.mark.parametrize("step", range(4))
def test_a_bad_version_is_rolled_back_in_the_step_that_shows_it_and_removed(step: int) -> None:
    async def story() -> None:
        told = Story()
        told.judge.verdicts[step] = Decision.ROLL_BACK
        await told.start()
        await told.turns()
        assert await told.routes() == [*ALL[: step + 1], ("1", None, 0)]
        release = await told.release()
        assert release.phase is Phase.ROLLED_BACK
        assert f"step {step} says" in release.why
        assert told.versions.running == {"1"}

    asyncio.run(story())


def test_the_version_that_is_rolled_back_stays_until_load_balancers_have_heard_of_it() -> None:
    async def story() -> None:
        told = Story()
        told.judge.verdicts[0] = Decision.ROLL_BACK
        await told.start()
        while (await told.release()).is_running:
            await told.turns(1)
        await told.turns(int(DRAIN_S) - 2)
        assert "2" in told.versions.running
        await told.turns(4)
        assert "2" not in told.versions.running

    asyncio.run(story())


def test_silence_neither_promotes_nor_rolls_back_and_is_held_at_the_deadline() -> None:
    async def story() -> None:
        told = Story(Plan(soak_s=5, deadline_s=40))
        told.judge.silent = True
        await told.start()
        await told.turns(30)
        assert (await told.release()).phase is Phase.STEPPING
        await told.turns(60)
        release = await told.release()
        assert release.phase is Phase.HELD
        assert "no replica has reported" in release.why
        assert await told.routes() == ALL[:1], "the share stays as it is"

    asyncio.run(story())


def test_a_held_release_goes_on_when_it_is_resumed_and_its_deadline_begins_anew() -> None:
    async def story() -> None:
        told = Story(Plan(soak_s=5, deadline_s=30))
        told.judge.verdicts[1] = Decision.HOLD
        await told.start()
        await told.turns()
        held = await told.release()
        assert (held.phase, held.step) == (Phase.HELD, 1)
        told.judge.verdicts.clear()
        await told.turns(100)
        assert (await told.release()).phase is Phase.HELD, "nobody but a person goes on"
        await told.write(state.resume(held, "the alert was about another model"))
        await told.turns(40)
        assert (await told.release()).phase is Phase.PROMOTED

    asyncio.run(story())


def test_a_held_release_is_still_rolled_back_when_the_version_is_bad() -> None:
    async def story() -> None:
        told = Story()
        told.judge.verdicts[1] = Decision.HOLD
        await told.start()
        await told.turns()
        told.judge.verdicts[1] = Decision.ROLL_BACK
        await told.turns(3)
        assert (await told.release()).phase is Phase.ROLLED_BACK

    asyncio.run(story())


def test_an_aborted_release_ends_at_once_and_its_driver_writes_no_more() -> None:
    async def story() -> None:
        told = Story()
        told.judge.silent = True
        await told.start()
        await told.turns(10)
        await told.write(state.abort(await told.release(), "a customer called"))
        await told.turns(30)
        assert await told.routes() == [("1", "2", 500), ("1", None, 0)]
        assert (await told.release()).why == "a customer called"

    asyncio.run(story())


@pytest.mark.parametrize("kind", ["routed", "rolled_back"])
def test_a_route_set_by_hand_ends_the_release(kind: str) -> None:
    async def story() -> None:
        told = Story()
        told.judge.silent = True
        await told.start()
        await told.turns(10)
        await told.write(state.Draft(kind, "by hand", {}, Split("1")))
        await told.turns(30)
        assert (await told.release()).phase is Phase.OVERTAKEN
        assert (await told.routes())[-1] == ("1", None, 0)

    asyncio.run(story())


@pytest.mark.parametrize("test", ["smoke", "shadow"])
def test_a_version_that_fails_a_test_never_gets_a_request_of_a_client(test: str) -> None:
    async def story() -> None:
        told = Story()
        told.trials.failing[test] = "the answer has no output y"
        await told.start()
        await told.turns()
        release = await told.release()
        assert release.phase is Phase.ROLLED_BACK
        assert "no output y" in release.why
        assert await told.routes() == [("1", None, 0)]

    asyncio.run(story())


def test_a_version_that_does_not_start_is_rolled_back_with_its_reason() -> None:
    async def story() -> None:
        told = Story()
        told.versions.failing["2"] = "the weights are gone"
        await told.start()
        await told.turns()
        assert "the weights are gone" in (await told.release()).why
        assert await told.routes() == [("1", None, 0)]

    asyncio.run(story())


def test_a_version_whose_approval_is_revoked_is_rolled_back() -> None:
    async def story() -> None:
        told = Story(configured=("1",))
        for kind, by in (("registered", "bob"), ("approved", "ann")):
            await told.write(state.Draft(kind, "", {"version": "2", "digest": "0" * 64}), by)
        told.judge.silent = True
        await told.start()
        await told.turns(3)
        assert (await told.release()).phase is Phase.TESTING
        await told.write(state.Draft("approval_revoked", "", {"version": "2"}), "ann")
        await told.turns(3)
        release = await told.release()
        assert release.phase is Phase.ROLLED_BACK
        assert "v2 has 0 of the 1 approvals" in release.why

    asyncio.run(story())


def test_a_driver_that_is_made_anew_before_each_turn_goes_on_from_the_log() -> None:
    async def story() -> None:
        told = Story()
        await told.start()
        await told.turns(kill=True)
        assert await told.routes() == ALL

    asyncio.run(story())


def consistent(routes: list[tuple[str, str | None, int]], cleared: list[int]) -> bool:
    """Returns whether shares only ever rose as planned, each step but the first after the judge had cleared the one
    before."""
    return routes == ALL[: len(routes)] and len(routes) - 1 <= len(set(cleared))


@pytest.mark.parametrize("after", [False, True])
def test_a_failure_of_any_call_leaves_shares_as_the_log_says_and_the_release_goes_on(after: bool) -> None:
    async def story(at: int) -> int:
        told = Story(faults=Faults(at, after=after))
        await told.start()
        for _ in range(50):
            before = told.faults.calls
            await told.driver.turn()
            if before <= at < told.faults.calls:
                told.driver = told.made()  # it was killed there
            told.clock.advance(S)
            routes = await told.routes()
            assert consistent(routes, told.judge.cleared)
            if routes == ALL:
                return told.faults.calls
        raise AssertionError(f"not promoted, with a failure of call {at}")

    used = asyncio.run(story(-1))
    assert used > 40
    for at in range(used):
        asyncio.run(story(at))


@pytest.mark.parametrize("written", [False, True])
def test_a_failure_of_any_call_of_the_store_loses_and_doubles_nothing(written: bool) -> None:
    async def story(at: int) -> int:
        store = type(Story().store)(fails_at=frozenset({at}), writes_then_fails=written)
        told = Story(store=store)
        try:
            await told.start()
        except OSError:
            pass
        except Exception:
            await told.start() if not store.objects else None
        before = store.calls
        for _ in range(60):
            await told.driver.turn()
            told.clock.advance(S)
        used = store.calls - before
        assert await told.routes() == ALL, f"call {at}"
        return used

    used = asyncio.run(story(-1))
    for at in range(3, used, 3):
        asyncio.run(story(at))


def test_two_drivers_at_once_write_nothing_twice() -> None:
    async def story() -> None:
        told = Story()
        await told.start()
        other = told.made()
        for _ in range(60):
            await asyncio.gather(told.driver.turn(), other.turn())
            told.clock.advance(S)
        assert await told.routes() == ALL

    asyncio.run(story())


def test_counts_are_written_now_and_then_and_seldom_while_a_release_is_held() -> None:
    async def story() -> None:
        told = Story(Plan(soak_s=5, deadline_s=3600))
        told.judge.verdicts = {0: Decision.WAIT}
        await told.start()
        await told.turns(300)
        records = [record for record in told.driver.log.records if record.kind == "evidence"]  # type: ignore[attr-defined]
        assert 8 <= len(records) <= 11
        await told.write(state.hold(await told.release(), "lunch"))
        await told.turns(300)
        held = [record for record in told.driver.log.records if record.kind == "evidence"]  # type: ignore[attr-defined]
        assert len(held) == len(records)

    asyncio.run(story())


def test_a_stable_version_that_a_restarted_server_lacks_is_deployed_again() -> None:
    async def story() -> None:
        told = Story()
        await told.start()
        await told.turns()
        told.versions.running = {"1"}  # what the settings name
        told.versions.deployed.clear()
        told.driver = told.made()
        await told.turns(2)
        assert told.versions.deployed == ["2"]
        assert "2" in told.versions.running

    asyncio.run(story())


def test_a_candidate_that_a_restarted_server_lacks_is_deployed_again_in_its_step() -> None:
    async def story() -> None:
        told = Story()
        told.judge.silent = True
        await told.start()
        await told.turns(10)
        told.versions.running = {"1"}
        told.versions.deployed.clear()
        told.driver = told.made()
        await told.turns(3)
        assert told.versions.deployed == ["2"]
        assert await told.routes() == ALL[:1]

    asyncio.run(story())


def test_a_second_release_begins_after_the_first_has_ended() -> None:
    async def story() -> None:
        told = Story(PLAN)
        await told.start()
        await told.start("3", "r2")  # ignored: one at a time
        await told.turns()
        await told.write(state.start("r3", "3", "2", PLAN, ""))
        await told.turns()
        assert (await told.routes())[-1] == ("3", None, 0)
        assert told.versions.running == {"2", "3"}

    asyncio.run(story())
