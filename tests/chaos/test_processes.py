"""Processes that die and models that hang, under load: every request ends in time, and all is well again by itself."""

import asyncio

import pytest

from tests.chaos.conftest import BUDGET_S, LATEST_S, MAX_MEMORY_MB, Headway, are_you_well, usual
from tests.chaos.crowd import OK, Crowd, CrowdOverGrpc, Reply, ask
from tests.chaos.troubled import DIE, HANG, LEAK, LEAK_MB

pytestmark = [
    pytest.mark.ray,
    pytest.mark.chaos,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(240),
]


def late(crowd: Crowd) -> list[Reply]:
    return [reply for reply in crowd.replies if reply.seconds > LATEST_S]


def assert_all_ended_well(crowd: Crowd) -> None:
    """Asserts that each request ended in time, with an answer or with an error that says what was wrong."""
    assert not [reply for reply in crowd.replies if not reply.is_clear], crowd.counts()
    assert not late(crowd), crowd.slowest_s()


def test_a_replica_that_is_killed_costs_nobody_an_answer(chaos: Headway) -> None:
    async def story() -> None:
        before, p95_s = await usual(chaos)
        async with Crowd("steady") as crowd:
            await crowd.until_well()
            chaos.kill(chaos.replicas()[:1])
            await chaos.until("replaced", lambda: len(chaos.replicas()) == 2)
            await crowd.until_well()
        assert_all_ended_well(crowd)
        await are_you_well(chaos, before, p95_s)

    asyncio.run(story())


def test_where_no_replica_is_left_requests_are_refused_in_time_on_both_wires_until_one_is_back(chaos: Headway) -> None:
    async def story() -> None:
        before, p95_s = await usual(chaos)
        async with Crowd("steady") as crowd, CrowdOverGrpc("steady") as over_grpc:
            await crowd.until_well()
            await over_grpc.until_well()
            chaos.kill(chaos.replicas())
            await crowd.until_well()
            await over_grpc.until_well()
        assert_all_ended_well(crowd)
        refused = [reply for reply in crowd.replies if reply.what.startswith("503 no replica")]
        assert refused, crowd.counts()
        assert all(reply.retry_after and reply.seconds < BUDGET_S + 1 for reply in refused), refused
        counts = over_grpc.counts()
        assert set(counts) - {"INTERNAL"} == {OK, "UNAVAILABLE"}, counts
        # Requests that both replicas had when they were killed: they cannot be told from one that killed them.
        assert counts["INTERNAL"] <= over_grpc.clients, counts
        assert over_grpc.slowest_s() < BUDGET_S + 1
        await are_you_well(chaos, before, p95_s)

    asyncio.run(story())


def test_a_request_that_takes_its_process_with_it_ends_and_all_is_well_again(chaos: Headway) -> None:
    async def story() -> None:
        before, p95_s = await usual(chaos)
        async with Crowd("steady") as crowd:
            await crowd.until_well()
            poison = await ask("steady", DIE)
            assert poison.what != OK
            await crowd.until_well()
        assert_all_ended_well(crowd)
        await are_you_well(chaos, before, p95_s)

    asyncio.run(story())


def test_a_model_that_hangs_is_given_up_in_time_and_its_replica_is_replaced(chaos: Headway) -> None:
    async def story() -> None:
        before, p95_s = await usual(chaos)
        old = set(chaos.replicas())
        async with Crowd("steady") as crowd:
            await crowd.until_well()
            hung = await ask("steady", HANG)
            assert hung.is_clear, hung
            assert hung.seconds < LATEST_S, hung
            await chaos.until("replaced", lambda: bool(set(chaos.replicas()) - old))
            await crowd.until_well()
        assert_all_ended_well(crowd)
        await are_you_well(chaos, before, p95_s)

    asyncio.run(story())


def test_a_model_that_leaks_has_its_replicas_replaced_before_the_machine_is_full(chaos: Headway) -> None:
    async def story() -> None:
        before, p95_s = await usual(chaos)
        old = set(chaos.replicas())
        async with Crowd("steady") as crowd:
            await crowd.until_well()
            for _ in range(2 * MAX_MEMORY_MB // LEAK_MB):
                if set(chaos.replicas()) != old:
                    break
                await ask("steady", LEAK)
            await chaos.until("replaced", lambda: bool(set(chaos.replicas()) - old))
            await crowd.until_well()
        assert_all_ended_well(crowd)
        # The other one has leaked too, and not enough to be replaced: it is not what this is about.
        chaos.kill(list(old & set(chaos.replicas())))
        await are_you_well(chaos, before, p95_s)

    asyncio.run(story())


def test_without_its_controller_it_serves_on_and_gets_a_new_one(chaos: Headway) -> None:
    async def story() -> None:
        before, p95_s = await usual(chaos)
        old = chaos.processes("ray::ServeController")
        async with Crowd("steady") as crowd:
            await crowd.until_well()
            chaos.kill(old)
            await chaos.until("replaced", lambda: set(chaos.processes("ray::ServeController")) - set(old))
            await crowd.until_well(200)
        assert set(crowd.counts()) == {OK}, crowd.counts()
        await are_you_well(chaos, before, p95_s)

    asyncio.run(story())


def test_haproxy_that_is_killed_comes_back_and_connections_are_all_that_is_lost(chaos: Headway) -> None:
    async def story() -> None:
        before, p95_s = await usual(chaos)
        async with Crowd("steady") as crowd:
            await crowd.until_well()
            chaos.kill(chaos.processes("haproxy"))
            await crowd.until_well()
        assert not late(crowd), crowd.slowest_s()
        unclear = {reply.what for reply in crowd.replies if not reply.is_clear}
        assert all(what.startswith("connection") for what in unclear), crowd.counts()
        await are_you_well(chaos, before, p95_s)

    asyncio.run(story())


def test_everything_killed_at_once_under_load_comes_back_by_itself(chaos: Headway) -> None:
    async def story() -> None:
        before, p95_s = await usual(chaos)
        async with Crowd("steady") as crowd:
            await crowd.until_well()
            names = ("ray::ServeReplica:", "ray::ServeController", "haproxy")
            chaos.kill([pid for name in names for pid in chaos.processes(name)])
            await crowd.until_well(patience_s=120)
        unclear = {reply.what for reply in crowd.replies if not reply.is_clear}
        assert all(what.startswith("connection") for what in unclear), crowd.counts()
        await are_you_well(chaos, before, p95_s)

    asyncio.run(story())
