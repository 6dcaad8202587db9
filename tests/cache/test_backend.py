"""Tests the cache in one process: who is computed, who gets whose answer, and that each request ends once."""

import random

import numpy as np
import pytest

from serving.core.errors import ModelError
from serving.core.outcome import Cancelled, Completed, Expired, Failed, Outcome, Reason, Rejected
from tests.cache.stories import TTL_S, House, story, turns, value

MS = 1_000_000


def test_an_equal_request_is_not_computed_again() -> None:
    async def tell() -> None:
        house = House()
        first = house.ask()
        house.engine.asked[0].complete()
        second = house.ask()
        assert (value(first), value(second)) == (2.0, 2.0)
        assert (first.outcome.cached, second.outcome.cached) == (False, True)
        assert len(house.engine.asked) == 1
        assert house.told.answers == [("acme", "memory", 1)]

    story(tell)


def test_another_request_another_tenant_and_other_parameters_are_computed() -> None:
    async def tell() -> None:
        house = House()
        house.ask()
        house.engine.asked[0].complete()
        for different in ({"value": 2.0}, {"tenant": "blue"}, {"tenant": ""}, {"parameters": {"k": 1}}):
            house.ask(**different)
        assert len(house.engine.asked) == 5

    story(tell)


def test_priority_and_timeout_make_no_difference() -> None:
    async def tell() -> None:
        house = House()
        house.ask(priority=1, timeout_ns=10**9)
        house.engine.asked[0].complete()
        assert value(house.ask(priority=2)) == 2.0
        assert house.engine.asked[0].more == {
            "rows": 1, "tenant": "acme", "priority": 1, "timeout_ns": 10**9, "age_ns": 0
        }  # fmt: skip

    story(tell)


def test_an_answer_expires() -> None:
    async def tell() -> None:
        house = House()
        house.ask()
        house.engine.asked[0].complete()
        house.calendar.advance((TTL_S * 1000 - 1) * MS)
        assert house.ask().outcome is not None
        house.calendar.advance(MS)
        assert house.ask().outcome is None

    story(tell)


def test_requests_that_wait_at_the_same_time_are_computed_once() -> None:
    async def tell() -> None:
        house = House()
        waiting = [house.ask() for _ in range(3)]
        assert len(house.engine.asked) == 1
        house.engine.asked[0].complete()
        assert [value(one) for one in waiting] == [2.0] * 3
        assert [one.outcome.cached for one in waiting] == [False, True, True]
        assert house.told.sources() == ["flight", "flight"]

    story(tell)


@pytest.mark.parametrize("leaver", [0, 1, 2])
def test_a_client_that_leaves_does_not_take_the_answer_of_others_along(leaver: int) -> None:
    async def tell() -> None:
        house = House()
        waiting = [house.ask() for _ in range(3)]
        waiting[leaver].cancel()
        assert isinstance(waiting[leaver].outcome, Cancelled)
        house.engine.asked[0].complete()
        assert [value(one) for one in waiting if one is not waiting[leaver]] == [2.0] * 2

    story(tell)


def test_when_the_last_client_leaves_the_computation_is_cancelled() -> None:
    async def tell() -> None:
        house = House()
        one, two = house.ask(), house.ask()
        one.cancel()
        assert house.engine.open()
        two.cancel()
        assert not house.engine.open()
        await turns()
        house.ask()
        assert len(house.engine.open()) == 1

    story(tell)


def test_a_failure_is_everybodys_and_is_not_kept() -> None:
    async def tell() -> None:
        house = House()
        waiting = [house.ask() for _ in range(2)]
        failure = Failed(ModelError("no"))
        house.engine.asked[0].end(failure)
        assert [one.outcome for one in waiting] == [failure, failure]
        house.ask()
        assert len(house.engine.open()) == 1

    story(tell)


@pytest.mark.parametrize("outcome", [Expired(1), Rejected(Reason.DEADLINE_HOPELESS, 1)])
def test_a_missed_deadline_is_that_of_one_request_and_the_others_begin_anew(outcome: Outcome) -> None:
    async def tell() -> None:
        house = House()
        hasty, patient = house.ask(timeout_ns=1), house.ask(timeout_ns=10**9)
        house.engine.asked[0].end(outcome)
        assert hasty.outcome is outcome
        await turns()
        assert house.engine.asked[1].more["timeout_ns"] == 10**9
        house.engine.asked[1].complete()
        assert value(patient) == 2.0

    story(tell)


@pytest.mark.parametrize("outcome", [Expired(1), Rejected(Reason.DEADLINE_HOPELESS, 1)])
def test_a_missed_deadline_of_a_client_that_has_left_is_nobody_elses(outcome: Outcome) -> None:
    async def tell() -> None:
        house = House()
        hasty, patient = house.ask(timeout_ns=1), house.ask(timeout_ns=10**9)
        hasty.cancel()
        house.engine.asked[0].end(outcome)
        await turns()
        assert patient.outcome is None
        house.engine.asked[1].complete()
        assert value(patient) == 2.0
        assert (house.engine.ended["acme"], house.told.ended_here["acme"]) == (2, 0)  # each counted once

    story(tell)


def test_many_refused_requests_are_each_refused() -> None:
    async def tell() -> None:
        house = House()
        waiting = [house.ask() for _ in range(2000)]
        refusal = house.engine.refusal = Rejected(Reason.QUEUE_FULL, 1)
        house.engine.asked[0].end(refusal)
        await turns(4000)
        assert all(one.outcome is refusal for one in waiting)
        assert house.engine.ended["acme"] == 2000

    story(tell)


def test_an_answer_after_the_clients_time_limit_is_none() -> None:
    async def tell() -> None:
        house = House()
        house.ask()
        hasty = house.ask(timeout_ns=5 * MS)
        house.clock.advance(6 * MS)
        house.engine.asked[0].complete()
        assert hasty.outcome == Expired(6 * MS)

    story(tell)


def test_what_was_computed_before_the_cache_was_cleared_is_not_kept() -> None:
    async def tell() -> None:
        house = House()
        early = house.ask()
        assert await house.cache.clear() == 0
        late = house.ask()
        assert len(house.engine.open()) == 2  # the late one does not get the early one's answer
        house.engine.asked[0].complete(y=np.zeros((1, 2), np.float32))
        assert (value(early), late.outcome) == (0.0, None)
        house.engine.asked[1].complete()
        assert value(house.ask()) == 2.0

    story(tell)


def test_one_tenants_answers_are_cleared() -> None:
    async def tell() -> None:
        house = House()
        for tenant in ("acme", "blue"):
            house.ask(tenant=tenant)
            house.engine.open()[0].complete()
        assert await house.cache.clear("acme") == 1
        assert house.ask(tenant="acme").outcome is None
        assert value(house.ask(tenant="blue")) == 2.0

    story(tell)


def test_nothing_that_a_client_or_model_changes_later_changes_an_answer() -> None:
    async def tell() -> None:
        house = House()
        batch = np.full((4, 2), 7, np.float32)
        house.ask()
        house.engine.asked[0].complete(y=batch[1:2])
        batch[:] = 0
        assert value(house.ask()) == 7.0

    story(tell)


def test_only_the_declared_outputs_are_kept() -> None:
    async def tell() -> None:
        house = House()
        house.ask()
        house.engine.asked[0].complete(y=np.ones((1, 2), np.float32), odd=np.array([1 + 2j]))
        assert set(house.ask().outcome.value) == {"y"}

    story(tell)


def test_a_large_request_is_looked_up_too() -> None:
    async def tell() -> None:
        house = House()
        payload = {"x": np.ones((600_000, 1), np.float32)}
        first = house.cache.submit(payload, rows=600_000)
        gone = house.cache.submit(payload, rows=600_000)
        gone.cancel()
        while not house.engine.asked:
            await turns()
        house.engine.asked[0].complete(y=np.ones((1, 2), np.float32))
        second = house.cache.submit({"x": payload["x"].copy()}, rows=600_000)
        await second
        assert (first.outcome.cached, second.outcome.cached) == (False, True)
        assert isinstance(gone.outcome, Cancelled)

    story(tell)


def test_statistics_count_hits_as_successes_and_as_hits() -> None:
    async def tell() -> None:
        house = House()
        house.ask(age_ns=3 * MS)
        house.engine.asked[0].complete()
        house.ask(age_ns=2 * MS)
        told = house.cache.statistics()
        assert (told.success.count, told.cache_hit.count, told.cache_miss.count) == (1, 1, 1)
        assert (told.cache_hit.ns, told.cache_miss.ns) == (2 * MS, 3 * MS)

    story(tell)


def test_a_cache_that_is_leaving_passes_everything_on() -> None:
    async def tell() -> None:
        house = House()
        house.ask()
        house.engine.asked[0].complete()
        await house.cache.leave()
        house.ask()
        assert len(house.engine.asked) == 2

    story(tell)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_each_request_ends_once_and_no_answer_crosses(seed: int) -> None:
    chance = random.Random(seed)
    outcomes = [Failed(ModelError("no")), Expired(1), Rejected(Reason.QUEUE_FULL, 1)]

    async def tell() -> None:
        house = House()
        requests: list[tuple[str, float, object]] = []

        def settle_one() -> None:
            waiting = house.engine.open()
            if waiting:
                asked = chance.choice(waiting)
                if chance.random() < 0.7:
                    # The answer tells for whom it was computed.
                    mark = {"acme": 1000.0, "blue": 2000.0}[asked.more["tenant"]] + float(asked.payload["x"][0, 0])
                    asked.complete(y=np.full((1, 2), mark, np.float32))
                else:
                    asked.end(chance.choice(outcomes))

        for _ in range(300):
            step = chance.random()
            if step < 0.5:
                tenant, number = chance.choice(["acme", "blue"]), float(chance.randrange(4))
                requests.append((tenant, number, house.ask(number, tenant)))
            elif step < 0.6 and requests:
                chance.choice(requests)[2].cancel()  # type: ignore[attr-defined]
            elif step < 0.63:
                await house.cache.clear(chance.choice([None, "acme"]))
            elif step < 0.66:
                house.calendar.advance(50 * 1000 * MS)
            elif step < 0.95:
                settle_one()
            else:
                await turns()
        await turns()
        while house.engine.open():
            settle_one()
            await turns()
        for tenant, number, request in requests:
            assert request.outcome is not None  # type: ignore[attr-defined]
            if isinstance(request.outcome, Completed):  # type: ignore[attr-defined]
                assert value(request) == {"acme": 1000.0, "blue": 2000.0}[tenant] + number
        for tenant in ("acme", "blue"):
            ended = house.engine.ended[tenant] + house.told.ended_here[tenant]
            assert ended == sum(owner == tenant for owner, _, _ in requests)

    story(tell)
