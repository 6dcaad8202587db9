"""The open loop: which shots are sent, when, and what is recorded."""

import asyncio
import socket
from collections.abc import Callable, Sequence

from loadtest.report import quantile, summarise
from loadtest.shooter import Shooter, load_schedule, shoot
from loadtest.shot import Shot
from loadtest.wires import Address, Flight
from loadtest.wires.http import HttpWire, message
from loadtest.workload import Prepared, Workload
from tests.loadtest.scripted import Reply, ScriptedServer, ScriptedWire, answer, lost, scripted

MS = 1_000_000


def request(url: str, body: bytes = b"row") -> Prepared:
    address = Address.parse(f"{url}/infer")
    return Prepared(request=message(address, "POST", address.path, {}, body), task="only")


def shots_at(
    reply: Sequence[Reply] | Callable[[int, str], Reply],
    schedule: Sequence[int],
    bodies: Sequence[bytes] = (b"row",),
    **options: float,
) -> tuple[list[Shot], ScriptedServer]:
    async def run() -> tuple[list[Shot], ScriptedServer]:
        async with scripted(reply) as server:
            wire = HttpWire(Address.parse(server.url), "binary")
            shots = await shoot(wire, schedule, [request(server.url, body) for body in bodies], **options)
            await wire.close()
            return shots, server

    return asyncio.run(run())


def one_after_another(reply: Sequence[Reply], count: int) -> tuple[list[Shot], ScriptedServer]:
    """Sends each shot after the previous one is done, so that the test does not depend on the machine's load."""

    async def run() -> tuple[list[Shot], ScriptedServer]:
        async with scripted(reply) as server:
            wire = HttpWire(Address.parse(server.url), "binary")
            shooter = Shooter(wire, start_ns=None, in_flight=8, timeout_s=10)
            shots = [await shooter.fire(0, request(server.url)) for _ in range(count)]
            await wire.close()
            return shots, server

    return asyncio.run(run())


def test_each_planned_shot_yields_one_record_in_order_with_its_instants() -> None:
    shots, server = shots_at([answer()], [0, 2 * MS, 4 * MS])
    assert [shot.planned_ns for shot in shots] == [0, 2 * MS, 4 * MS]
    for shot in shots:
        assert (shot.status, shot.error, shot.task) == (200, None, "only")
        assert shot.planned_ns <= shot.sent_ns <= shot.first_byte_ns <= shot.done_ns
    assert server.bodies == [b"row"] * 3
    assert server.heads[0].startswith("POST /v2/models/noop/infer HTTP/1.1\r\nhost: 127.0.0.1:")


def test_a_connection_is_used_again() -> None:
    _, server = one_after_another([answer()], count=3)
    assert server.connections == 1


def test_a_silent_server_does_not_hold_back_the_next_shot() -> None:
    shots, server = shots_at([None, answer()], [0, 1 * MS], timeout_s=0.5)
    assert [(shot.status, shot.error) for shot in shots] == [(None, "timed out"), (200, None)]
    assert shots[1].sent_ns < 500 * MS  # long before the first was aborted
    assert server.connections == 2


def test_a_shot_that_finds_too_many_in_flight_is_counted_and_not_delayed() -> None:
    shots, server = shots_at([None], [0, 1 * MS, 2 * MS], in_flight=2, timeout_s=0.5)
    assert [shot.error for shot in shots] == ["timed out", "timed out", "not sent: 2 already in flight"]
    assert shots[2].sent_ns is None
    assert len(server.heads) == 2


def test_what_the_server_says_about_a_refusal_is_kept() -> None:
    (shot,), _ = shots_at([answer(503, b'{"error":"the queue is full"}')], [0])
    assert (shot.status, shot.error, shot.is_answered) == (503, "the queue is full", False)
    assert shot.done_ns is not None


def test_a_refusal_that_is_no_json_is_kept_as_it_came() -> None:
    shots, _ = one_after_another([answer(502, b"<h1>Bad Gateway</h1>"), answer(500, b"")], count=2)
    assert [shot.error for shot in shots] == ["<h1>Bad Gateway</h1>", "status 500 without a body"]


def test_a_connection_closed_instead_of_an_answer_is_lost_and_nothing_is_sent_twice() -> None:
    shots, server = one_after_another([answer(), b"", answer()], count=3)
    assert [shot.status for shot in shots] == [200, None, 200]
    assert shots[1].error == "connection lost: closed before the answer was whole"
    assert shots[1].sent_ns is not None
    assert (len(server.heads), server.connections) == (3, 2)


def test_a_server_that_closes_after_an_answer_gets_a_new_connection() -> None:
    shots, server = one_after_another([answer(extra="connection: close\r\n")], count=2)
    assert [shot.status for shot in shots] == [200, 200]
    assert server.connections == 2


def test_bytes_that_are_no_answer_are_an_error_of_that_shot_only() -> None:
    shots, _ = one_after_another([b"hello there\r\n\r\n", answer()], count=2)
    assert shots[0].error == "bad answer: not an HTTP/1 answer: 'hello there'"
    assert shots[1].status == 200


def test_a_refused_connection_is_an_error_of_each_shot() -> None:
    async def run(url: str) -> list[Shot]:
        return await shoot(HttpWire(Address.parse(url), "binary"), [0, 1 * MS], [request(url)])

    with socket.socket() as reserved:  # bound and never listening: connections are refused
        reserved.bind(("127.0.0.1", 0))
        shots = asyncio.run(run(f"http://127.0.0.1:{reserved.getsockname()[1]}/v2/models/m"))
    assert [(shot.sent_ns, shot.error) for shot in shots] == [(None, "not sent: connection refused")] * 2


def test_several_requests_are_taken_in_turn() -> None:
    _, server = shots_at([answer()], [0, 1 * MS, 2 * MS], [b"a", b"b"])
    assert sorted(server.bodies) == [b"a", b"a", b"b"]


def test_quantiles_are_exactly_those_of_a_server_with_known_service_times() -> None:
    """Uses a scripted wire with the instants of a server that takes 1 ms, 2 ms … 1 s, and of a late generator."""
    schedule = [index * 10_000 for index in range(1000)]
    service_ms, late_us = [(index * 387) % 1000 + 1 for index in range(1000)], 250

    def flight(index: int, _: object) -> Flight:
        sent = schedule[index] + late_us * 1000
        return Flight(sent, sent + MS // 2, sent + service_ms[index] * MS, 200)

    shots = asyncio.run(
        shoot(ScriptedWire(flight), schedule, [Prepared(request=b"", task="a")], start_ns=0, in_flight=1000)
    )
    summary = summarise(shots)
    exact = sorted(service_ms)
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)):
        assert summary.from_sent_ms[name] == quantile(exact, share)
        assert summary.from_planned_ms[name] == quantile(exact, share) + 0.25
    assert summary.lateness_ms["max"] == 0.25


def test_the_load_is_the_same_for_any_number_of_processes() -> None:
    workload = Workload([Prepared(request=name, task=name) for name in "abcd"], [4, 3, 2, 1])
    schedule = [index * 1000 for index in range(40)]

    def fired(which: int, count: int) -> list[tuple[int, str]]:
        wire = ScriptedWire(lambda *_: Flight(0, 0, 0, 200))
        shots = asyncio.run(load_schedule(wire, workload, schedule, seed=3, share=(which, count), start_ns=0))
        return [(shot.planned_ns, shot.task) for shot in shots]

    assert sorted(fired(0, 3) + fired(1, 3) + fired(2, 3)) == fired(0, 1)


def test_a_connection_that_fails_before_the_request_left_is_not_sent() -> None:
    wire = ScriptedWire(lambda *_: lost("connection refused"))
    (shot,) = asyncio.run(shoot(wire, [0], [Prepared(request=b"", task="a")]))
    assert (shot.sent_ns, shot.error) == (None, "not sent: connection refused")
