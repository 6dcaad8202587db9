"""Tests that what was pushed and answered is in the files of the offline store, whatever fails or is killed."""

import asyncio
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event

import pyarrow.parquet as pq
import pytest

from serving.core.clock import Calendar, Clock
from serving.features.offline import layout, spool
from serving.features.offline.drain import drain
from serving.features.offline.spool import LONGEST_TENANT, Spool
from serving.features.rows import Row
from serving.features.views import Feature, FeatureView
from tests.features.faults import Killed, failing_at

VIEW = FeatureView(
    name="clicks",
    entity="user",
    key="user_id",
    features=(
        Feature(name="count", datatype="INT64"),
        Feature(name="share", datatype="FP32", allow_nan=True),
        Feature(name="word", datatype="BYTES"),
    ),
)
NOON_MS, DAY_MS = 1_700_000_000_000, 86_400_000
FULL = OSError(errno.ENOSPC, "No space left on device")
COUNT = range(4)


OPEN: list[Spool] = []


@pytest.fixture(autouse=True)
def _files_end() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().end_file()


def opened(root: Path, calendar: Clock | None = None) -> Spool:
    """Returns a spool whose file ends with the test."""
    OPEN.append(Spool(root, calendar or Calendar()))
    return OPEN[-1]


def row(count: int) -> Row:
    return Row(f"u{count}", NOON_MS + count % 2 * DAY_MS, {"count": count})


def push(to: Spool, *rows: Row, tenant: str = "acme") -> None:
    asyncio.run(to.append(tenant, VIEW, rows))


def push_all(to: Spool, counts: Sequence[int]) -> set[int]:
    """Pushes a row for each count, one by one. Returns those that were answered."""
    answered = set()
    for count in counts:
        try:
            push(to, row(count))
        except OSError:
            continue
        answered.add(count)
    return answered


def counts(root: Path, tenant: str = "acme") -> list[int]:
    """Returns the counts in all rows of the store, sorted."""
    files = layout.files(root, tenant, "clicks")
    return sorted(count for path in files for count in pq.read_table(path)["count"].to_pylist())


def left(root: Path) -> list[str]:
    """Returns the names of the files in the spool."""
    return sorted(path.name for path in (root / "spool").iterdir())


def spool_file(root: Path) -> Path:
    (name,) = left(root)
    return root / "spool" / name


def test_what_was_pushed_is_in_the_store_as_it_was(tmp_path: Path) -> None:
    to = opened(tmp_path)
    push(
        to,
        Row("u1", NOON_MS, {"count": -(1 << 63), "share": 0.10000000149011612, "word": 'ü"\n\x00'}),
        Row("u2", NOON_MS, {"count": None, "share": float("inf"), "word": None}),
        Row("u3", NOON_MS, {"word": ""}),
    )
    to.end_file()
    assert drain(tmp_path) == []
    (file,) = layout.files(tmp_path, "acme", "clicks")
    table = pq.ParquetFile(file).read()
    assert table.schema == layout.schema_of(VIEW)
    assert table["entity_id"].to_pylist() == ["u1", "u2", "u3"]
    assert table["count"].to_pylist() == [-(1 << 63), None, None]
    assert table["share"].to_pylist() == [0.10000000149011612, float("inf"), None]
    assert table["word"].to_pylist() == ['ü"\n\x00', None, ""]
    assert table["cleared"].to_pylist() == [None, ["count", "word"], None]
    assert table["event_ts"].cast("int64").to_pylist() == [NOON_MS * 1000] * 3
    assert left(tmp_path) == []


def test_a_value_that_is_not_a_number_stays_one(tmp_path: Path) -> None:
    to = opened(tmp_path)
    push(to, Row("u1", NOON_MS, {"share": float("nan")}))
    to.end_file()
    drain(tmp_path)
    (share,) = pq.read_table(layout.files(tmp_path, "acme", "clicks")[0])["share"].to_pylist()
    assert share != share


def test_a_file_that_a_process_writes_is_left_to_it(tmp_path: Path) -> None:
    to = opened(tmp_path)
    push(to, row(1))
    assert drain(tmp_path) == []
    assert counts(tmp_path) == []
    push(to, row(2))
    to.end_file()
    drain(tmp_path)
    assert counts(tmp_path) == [1, 2]


def test_pushes_that_arrive_during_a_write_share_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to = opened(tmp_path)
    push(to, row(0))
    synced, may_go_on = 0, Event()
    real = os.fsync

    def waits(file: int) -> None:
        nonlocal synced
        synced += 1
        may_go_on.wait()
        real(file)

    monkeypatch.setattr(os, "fsync", waits)

    async def all_at_once() -> None:
        async with asyncio.TaskGroup() as group:
            for count in range(1, 50):
                group.create_task(to.append("acme", VIEW, [row(count)]))
                await asyncio.sleep(0)  # it waits for the disk now
            may_go_on.set()

    asyncio.run(all_at_once())
    assert synced <= 2
    to.end_file()
    drain(tmp_path)
    assert counts(tmp_path) == list(range(50))


def test_no_two_pushes_have_one_time_though_the_clock_stands_still(tmp_path: Path) -> None:
    class Still:
        now_ns = staticmethod(lambda: NOON_MS * 1_000_000)

    to = opened(tmp_path, Still())
    for count in COUNT:
        push(to, row(count))
    lines = spool_file(tmp_path).read_text().splitlines()
    assert [json.loads(line)["created_us"] - NOON_MS * 1000 for line in lines] == list(COUNT)


def test_a_large_file_is_ended_and_the_next_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "MOST_BYTES", 300)
    to = opened(tmp_path)
    push_all(to, range(10))
    assert len(left(tmp_path)) > 2
    to.end_file()
    drain(tmp_path)
    assert counts(tmp_path) == list(range(10))


def test_a_tenant_whose_name_is_no_folder_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    to = opened(tmp_path)
    with pytest.raises(ValueError, match="the tenant's name has more than 248 bytes"):
        push(to, row(1), tenant="/" * (LONGEST_TENANT // 3 + 1))
    longest = "/" * (LONGEST_TENANT // 3)
    push(to, row(1), tenant=longest)
    to.end_file()
    assert drain(tmp_path) == []
    assert counts(tmp_path, longest) == [1]


def test_pushes_are_refused_when_too_many_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "MOST_WAITING_ROWS", 2)
    may_go_on, real = Event(), os.fsync

    def waits(file: int) -> None:
        may_go_on.wait()
        real(file)

    monkeypatch.setattr(os, "fsync", waits)
    to = opened(tmp_path)

    async def too_many() -> list[BaseException | None]:
        calls = [asyncio.ensure_future(to.append("acme", VIEW, [row(count)])) for count in range(20)]
        await asyncio.sleep(0)
        may_go_on.set()
        return list(await asyncio.gather(*calls, return_exceptions=True))

    outcomes = asyncio.run(too_many())
    assert "rows wait for the disk already" in str(next(filter(None, outcomes)))
    to.end_file()
    drain(tmp_path)
    assert counts(tmp_path) == [count for count, outcome in enumerate(outcomes) if outcome is None]


def test_a_disk_that_does_not_answer_refuses_the_push(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on = Event()
    monkeypatch.setattr(spool, "PATIENCE_S", 0.01)
    monkeypatch.setattr(os, "fsync", lambda file: may_go_on.wait())
    with pytest.raises(OSError, match="the disk has not answered for"):
        push(opened(tmp_path), row(1))
    may_go_on.set()


def calls_of_pushes(root: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        made = failing_at(patch, 1 << 30, FULL)
        to = opened(root)
        push_all(to, COUNT)
        to.end_file()
        return made()


def test_when_the_folder_is_removed_pushes_are_kept_in_a_new_one_from_the_next_file_on(tmp_path: Path) -> None:
    to = opened(tmp_path)
    push(to, row(1))
    shutil.rmtree(tmp_path / "spool")
    to.end_file()
    push(to, row(2))
    to.end_file()
    drain(tmp_path)
    assert counts(tmp_path) == [2]


@pytest.mark.parametrize("most_bytes", [1, spool.MOST_BYTES])
@pytest.mark.parametrize("once", [True, False])
def test_whichever_call_fails_what_was_answered_is_there_and_the_rest_may_be_pushed_again(
    tmp_path: Path, once: bool, monkeypatch: pytest.MonkeyPatch, most_bytes: int
) -> None:
    monkeypatch.setattr(spool, "MOST_BYTES", most_bytes)
    for number in range(calls_of_pushes(tmp_path / "whole")):
        root = tmp_path / str(number)
        to = opened(root)
        with pytest.MonkeyPatch.context() as patch:
            failing_at(patch, number, FULL, once=once)
            answered = push_all(to, COUNT)
        assert once <= (len(answered) >= len(COUNT) - 1)
        again = set(COUNT) - answered
        assert push_all(to, sorted(again)) == again
        to.end_file()
        drain(root)
        found = Counter(counts(root))
        assert set(found) == set(COUNT)
        assert all(found[count] == 1 for count in answered)
        assert left(root) == []


def test_on_a_full_disk_no_empty_files_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to = opened(tmp_path)

    def full(file: int) -> None:
        raise FULL

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert push_all(to, range(100)) == set()
        assert len(left(tmp_path)) <= 1
    assert push_all(to, [1]) == {1}


def full_spool(root: Path) -> None:
    """Makes a spool of two files and two tenants."""
    for tenant in ("acme", "globex"):
        to = opened(root)
        push(to, *map(row, COUNT), tenant=tenant)
        push(to, row(100), tenant="acme")
        to.end_file()


def calls_of_a_drain(root: Path) -> int:
    full_spool(root)
    with pytest.MonkeyPatch.context() as patch:
        made = failing_at(patch, 1 << 30, FULL)
        drain(root)
        return made()


@pytest.mark.parametrize(("error", "once"), [(FULL, True), (Killed(), False)])
def test_a_drain_that_ends_at_any_call_is_done_again_and_every_row_is_there_once(
    tmp_path: Path, error: Exception, once: bool
) -> None:
    for number in range(calls_of_a_drain(tmp_path / "whole")):
        root = tmp_path / str(number)
        full_spool(root)
        with pytest.MonkeyPatch.context() as patch:
            failing_at(patch, number, error, once=once)
            with suppress(Killed):
                drain(root)
        assert drain(root) == []
        assert counts(root) == [*COUNT, 100, 100]
        assert counts(root, "globex") == list(COUNT)
        assert left(root) == []


def test_one_file_that_cannot_be_drained_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full_spool(tmp_path)
    real = layout.append

    def refuses_globex(root, tenant, view, rows, *, name):
        if tenant == "globex":
            raise PermissionError(errno.EACCES, "Permission denied", "globex")
        return real(root, tenant, view, rows, name=name)

    with monkeypatch.context() as patch:
        patch.setattr(layout, "append", refuses_globex)
        (trouble,) = drain(tmp_path)
    assert "stays for now: [Errno 13] Permission denied: 'globex'" in trouble
    assert set(counts(tmp_path)) >= set(COUNT)
    assert len(left(tmp_path)) == 1


def test_a_torn_last_line_is_left_out_and_told(tmp_path: Path) -> None:
    to = opened(tmp_path)
    push_all(to, [1, 2])
    to.end_file()
    file = spool_file(tmp_path)
    whole = file.read_bytes()
    first = whole.index(b"\n") + 1
    for end in (first, first + 1, len(whole) - 1):
        root = tmp_path / str(end)
        (root / "spool").mkdir(parents=True)
        (root / "spool" / file.name).write_bytes(whole[:end])
        assert ["its last line is torn and left out" in trouble for trouble in drain(root)] == [True] * (end > first)
        assert counts(root) == [1]
        assert left(root) == []


@pytest.mark.parametrize(
    "damage", [b"\x00\xff", b"{}", b"[]", b'"x"', b"null", b"\xc3", b'{"tenant": 3}', b"[" * 100_000]
)
def test_of_a_damaged_file_all_other_lines_are_stored_and_the_file_is_kept(tmp_path: Path, damage: bytes) -> None:
    to = opened(tmp_path)
    push_all(to, [1, 2])
    to.end_file()
    file = spool_file(tmp_path)
    file.write_bytes(damage + b"\n" + file.read_bytes())
    (trouble,) = drain(tmp_path)
    assert "1 lines are no pushes" in trouble
    assert counts(tmp_path) == [1, 2]
    assert left(tmp_path) == [file.with_suffix(".unreadable").name]
    assert drain(tmp_path) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"rows": 3},
        {"rows": [["u1", "noon", {}]]},
        {"rows": [["u1", 1 << 63, {}]]},
        {"rows": [["u1", 0, {"count": "x"}]]},
        {"rows": [[]]},
        {"types": {"count": "NONE"}},
        {"types": 3},
        {"tenant": 3},
        {"tenant": []},
        {"tenant": "\ud800"},
        {"view": None},
        {"version": None},
        {"created_us": "x"},
    ],
)
def test_a_line_with_a_field_of_another_kind_is_no_push(tmp_path: Path, changed: dict[str, object]) -> None:
    to = opened(tmp_path)
    push(to, row(1))
    to.end_file()
    file = spool_file(tmp_path)
    good = json.loads(file.read_text())
    file.write_text(f"{json.dumps(good)}\n{json.dumps(good | changed)}\n")
    drain(tmp_path)
    assert left(tmp_path) == [file.with_suffix(".unreadable").name]


def test_nothing_is_lost_while_files_are_drained_as_fast_as_they_are_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "MOST_BYTES", 1)  # a file for each write
    to = opened(tmp_path)

    async def both() -> None:
        done = False

        async def draining() -> None:
            while not done:
                assert await asyncio.to_thread(drain, tmp_path) == []

        task = asyncio.ensure_future(draining())
        for first in range(0, 200, 2):
            await asyncio.gather(*(to.append("acme", VIEW, [row(count)]) for count in (first, first + 1)))
        done = True
        await task

    asyncio.run(both())
    drain(tmp_path)
    assert counts(tmp_path) == list(range(200))


def test_what_a_killed_process_had_answered_is_taken_over(tmp_path: Path) -> None:
    program = f"""
import asyncio
from pathlib import Path
from tests.features.test_spool import VIEW, Calendar, Spool, row

async def run():
    to = Spool(Path({str(tmp_path)!r}), Calendar())
    for count in range(1_000_000):
        await to.append("acme", VIEW, [row(count)])
        print(count, flush=True)

asyncio.run(run())
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    answered = [int(process.stdout.readline()) for _ in range(30)]
    assert drain(tmp_path) == []
    assert counts(tmp_path) == []  # it is alive
    process.send_signal(signal.SIGKILL)
    answered += [int(line) for line in process.stdout.read().split("\n")[:-1]]
    process.wait()
    process.stdout.close()
    drain(tmp_path)
    found = counts(tmp_path)
    assert found[: len(answered)] == answered
    assert len(found) <= len(answered) + 1
    assert left(tmp_path) == []
