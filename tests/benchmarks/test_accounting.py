"""Parsing /proc and accounting CPU seconds by process."""

import os
from dataclasses import replace

import pytest

from benchmarks.peers.accounting import (
    TICKS_PER_SECOND,
    Process,
    family,
    label,
    parse_busy_seconds,
    parse_process,
    processes,
    spent,
)


def process(pid: int, parent: int = 1, session: int = 0, cpu_s: float = 0.0, name: str = "server") -> Process:
    return Process(
        pid=pid, parent=parent, group=session, session=session, started_ticks=pid * 10, cpu_s=cpu_s, label=name
    )


def table(*members: Process) -> dict[int, Process]:
    return {member.pid: member for member in members}


def stat_line(name: str) -> str:
    fields = [
        "S",
        "7",
        "40",
        "40",
        "0",
        "-1",
        "0",
        "0",
        "0",
        "0",
        "0",
        str(3 * TICKS_PER_SECOND),
        str(TICKS_PER_SECOND),
    ]
    return f"41 ({name}) {' '.join([*fields, '0', '0', '20', '0', '4', '0', '987654', '0', '0'])}"


def test_a_process_is_read_with_user_and_system_time_added() -> None:
    parsed = parse_process(stat_line("haproxy"), "/usr/sbin/haproxy\0-f\0x.cfg\0")
    assert parsed == Process(pid=41, parent=7, group=40, session=40, started_ticks=987654, cpu_s=4.0, label="haproxy")


def test_a_name_with_brackets_and_spaces_does_not_shift_the_fields() -> None:
    assert parse_process(stat_line("a) S (b"), "").parent == 7
    assert parse_process(stat_line("a) S (b"), "").label == "a) S (b"


@pytest.mark.parametrize(
    ("command_line", "shown"),
    [
        ("/opt/bin/tritonserver\0--http-port=1\0", "tritonserver"),
        ("/venv/bin/python\0/somewhere/ray_server.py\0--port\0", "ray_server.py"),
        ("python3.11\0-u\0/x/log_monitor.py\0", "log_monitor.py"),
        ("/venv/bin/python\0-m\0serving\0serve\0", "serving"),
        ("/venv/bin/python\0-c\0from multiprocessing.spawn import spawn_main\0", "python -c (multiprocessing)"),
        ("ray::ServeReplica:noop:Noop.handle_request\0", "ray::ServeReplica:noop:Noop"),
        ("", ""),
    ],
)
def test_a_label_names_what_runs_and_not_its_interpreter(command_line: str, shown: str) -> None:
    assert label(command_line) == shown


def test_a_family_holds_children_orphans_of_the_session_and_members_known_before() -> None:
    left_the_session = process(14, parent=1, session=14)
    everyone = table(
        process(10, session=10),
        process(11, parent=10, session=10),
        process(12, parent=11, session=12),
        process(13, parent=1, session=10),
        left_the_session,
        process(15, parent=14, session=14),
        process(99, parent=1, session=99),
    )
    assert set(family(everyone, root=10)) == {10, 11, 12, 13}
    assert set(family(everyone, root=10, known={left_the_session.identity})) == {10, 11, 12, 13, 14, 15}


def test_a_pid_that_was_handed_out_again_is_no_member() -> None:
    former = process(14, session=14)
    assert family(table(replace(former, started_ticks=5)), root=10, known={former.identity}) == {}


def test_cpu_time_is_summed_by_label_and_new_processes_count_from_their_start() -> None:
    before = table(process(1, cpu_s=10.0, name="server"), process(2, cpu_s=5.0, name="worker"))
    after = table(
        process(1, cpu_s=12.0, name="server"),
        process(2, cpu_s=5.5, name="worker"),
        process(3, cpu_s=0.25, name="worker"),
        process(4, cpu_s=0.0, name="idle"),
    )
    assert spent(before, after) == {"server": 2.0, "worker": 0.75}


def test_a_pid_handed_out_again_between_readings_counts_from_its_own_birth() -> None:
    before = table(process(1, cpu_s=10.0))
    after = table(replace(process(1, cpu_s=0.5), started_ticks=777))
    assert spent(before, after) == {"server": 0.5}


def test_the_machine_is_busy_with_everything_but_idling_and_waiting() -> None:
    ticks = TICKS_PER_SECOND
    assert (
        parse_busy_seconds(f"cpu  {ticks} {ticks} {ticks} {900 * ticks} {50 * ticks} {ticks} {ticks} 0 0 0\ncpu0")
        == 5.0
    )


def test_this_very_process_is_found() -> None:
    assert processes()[os.getpid()].parent == os.getppid()
