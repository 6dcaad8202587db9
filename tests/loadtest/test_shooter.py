"""The open loop against a scripted server: who is sent, when, and what is written down."""

import asyncio
import json
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from loadtest.__main__ import main
from loadtest.payloads import Payload
from loadtest.shooter import Shooter, shoot
from loadtest.shot import Shot
from loadtest.wires.http import Target
from tests.loadtest.scripted import Reply, ScriptedServer, answer, scripted

MS = 1_000_000
PAYLOAD = Payload(b"row", {"content-type": "application/octet-stream"})


def shots_at(
    reply: Sequence[Reply] | Callable[[int, str], Reply],
    schedule: Sequence[int],
    payload: Payload | Sequence[Payload] = PAYLOAD,
    **options: float,
) -> tuple[list[Shot], ScriptedServer]:
    async def run() -> tuple[list[Shot], ScriptedServer]:
        async with scripted(reply) as server:
            return await shoot(f"{server.url}/infer", schedule, payload, **options), server

    return asyncio.run(run())


def one_after_another(reply: Sequence[Reply], count: int) -> tuple[list[Shot], ScriptedServer]:
    """Each shot is fired when the one before it is over, however busy this machine is."""

    async def run() -> tuple[list[Shot], ScriptedServer]:
        async with scripted(reply) as server:
            target = Target.parse(server.url)
            shooter = Shooter(target, connections=8, timeout_s=10)
            shots = [await shooter.fire(0, target.request(b"row", {})) for _ in range(count)]
            shooter.close()
            return shots, server

    return asyncio.run(run())


def test_each_planned_shot_yields_one_record_in_order_with_its_instants() -> None:
    shots, server = shots_at([answer()], [0, 2 * MS, 4 * MS])
    assert [shot.planned_ns for shot in shots] == [0, 2 * MS, 4 * MS]
    for shot in shots:
        assert (shot.status, shot.error) == (200, None)
        assert shot.planned_ns <= shot.sent_ns <= shot.first_byte_ns <= shot.done_ns
    assert server.bodies == [b"row"] * 3
    assert server.heads[0].startswith("POST /v2/models/noop/infer HTTP/1.1\r\nhost: 127.0.0.1:")


def test_a_connection_is_used_again() -> None:
    _, server = one_after_another([answer()], count=3)
    assert server.connections == 1


def test_a_silent_server_does_not_hold_back_the_next_shot() -> None:
    shots, server = shots_at([None, answer()], [0, 1 * MS], timeout_s=0.5)
    assert [(shot.status, shot.error) for shot in shots] == [(None, "timed out"), (200, None)]
    assert shots[1].sent_ns < 500 * MS  # long before the first was given up
    assert server.connections == 2


def test_a_shot_that_finds_all_connections_busy_is_counted_and_not_delayed() -> None:
    shots, server = shots_at([None], [0, 1 * MS, 2 * MS], connections=2, timeout_s=0.5)
    assert [shot.error for shot in shots] == ["timed out", "timed out", "not sent: all 2 connections busy"]
    assert shots[2].sent_ns is None
    assert len(server.heads) == 2


def test_what_the_server_says_about_a_refusal_is_kept() -> None:
    (shot,), _ = shots_at([answer(503, b'{"error":"the queue is full"}')], [0])
    assert (shot.status, shot.error, shot.is_answered) == (503, '{"error":"the queue is full"}', False)
    assert shot.done_ns is not None


def test_a_connection_closed_instead_of_an_answer_is_lost_and_nothing_is_sent_twice() -> None:
    shots, server = one_after_another([answer(), b"", answer()], count=3)
    assert [shot.status for shot in shots] == [200, None, 200]
    assert shots[1].error == "connection lost: closed before the answer was whole"
    assert shots[1].sent_ns is not None
    assert (len(server.heads), server.connections) == (3, 2)


def test_a_server_that_says_goodbye_after_an_answer_is_connected_to_anew() -> None:
    shots, server = one_after_another([answer(extra="connection: close\r\n")], count=2)
    assert [shot.status for shot in shots] == [200, 200]
    assert server.connections == 2


def test_bytes_that_are_no_answer_are_an_error_of_that_shot_only() -> None:
    shots, _ = one_after_another([b"hello there\r\n\r\n", answer()], count=2)
    assert shots[0].error == "bad answer: not an HTTP/1 answer: 'hello there'"
    assert shots[1].status == 200


def test_nobody_listening_is_an_error_of_each_shot() -> None:
    with socket.socket() as reserved:  # bound and never listening: the port is surely refused
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/infer"
        shots = asyncio.run(shoot(url, [0, 1 * MS], PAYLOAD))
    assert [(shot.sent_ns, shot.error) for shot in shots] == [(None, "not sent: connection refused")] * 2


def test_several_payloads_are_taken_in_turn() -> None:
    payloads = [Payload(name, {}) for name in (b"a", b"b")]
    _, server = shots_at([answer()], [0, 1 * MS, 2 * MS], payloads)
    assert sorted(server.bodies) == [b"a", b"a", b"b"]


METADATA = json.dumps({"name": "noop", "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]}).encode()


def command_line(reply: Callable[[int, str], Reply], *words: str) -> int:
    """The command runs an event loop of its own, so the server gets another thread's."""

    async def run() -> int:
        async with scripted(reply) as server:
            return await asyncio.to_thread(main, ["run", server.url, *words])

    return asyncio.run(run())


def test_the_command_reads_the_model_shoots_and_writes_summary_and_shots(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary, shots = tmp_path / "summary.json", tmp_path / "shots.jsonl"
    code = command_line(
        lambda _, head: answer(body=METADATA if head.startswith("GET") else b"y"),
        "--rate", "100", "--seconds", "0.1", "--arrivals", "constant", "--json", str(summary), "--shots", str(shots),
    )  # fmt: skip
    assert code == 0
    assert "planned 10, sent 10, not sent 0, answered 10" in capsys.readouterr().out
    assert json.loads(summary.read_text())["by_status"] == {"200": 10}
    assert len(shots.read_text().splitlines()) == 10


def test_the_command_fails_where_a_shot_was_not_answered() -> None:
    code = command_line(
        lambda _, head: answer(body=METADATA) if head.startswith("GET") else answer(503),
        "--rate", "100", "--seconds", "0.05",
    )  # fmt: skip
    assert code == 1


def test_the_command_says_what_an_unknown_model_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(lambda *_: answer(404, b'{"error":"no such model"}'), "--rate", "1", "--seconds", "1") == 2
    assert 'answers 404: {"error":"no such model"}' in capsys.readouterr().err
