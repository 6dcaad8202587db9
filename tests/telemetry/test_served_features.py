"""Tests the log of served features: it is what `headway features check` reads, sampled and bounded."""

import asyncio
import random
from pathlib import Path

import pytest

from serving.features.offline.served import Served, served_in
from serving.features.reading import Answers, Reason
from serving.telemetry import served_features
from serving.telemetry.served_features import ServedLog
from tests.cache.stories import turns

AT_MS = 1_795_953_600_000
ANSWERS = Answers([41, "??"], [Reason.PRESENT, Reason.MISSING], [], 0)


def logged(folder: Path, share: float, calls: int, ids: tuple[str, ...] = ("u7", "u8")) -> list[Served]:
    async def tell() -> None:
        log = ServedLog(folder, share=share, random=random.Random(3).random)
        for _ in range(calls):
            log.note("acme", "stats", ("age", "country"), ids, [ANSWERS] * len(ids), AT_MS)
        while log._lines._is_due:
            await turns(1)

    asyncio.run(tell())
    lines = [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]
    return list(served_in(lines))


def test_a_line_is_read_as_the_answer_that_was_served(tmp_path: Path) -> None:
    values, reasons = {"age": 41, "country": "??"}, {"age": "present", "country": "missing"}
    assert logged(tmp_path / "new", 1.0, 1) == [
        Served("acme", "stats", id, AT_MS, values, reasons) for id in ("u7", "u8")
    ]


def test_a_share_of_the_answers_is_logged(tmp_path: Path) -> None:
    chance = random.Random(3)
    assert len(logged(tmp_path, 0.25, 1000, ("u7",))) == sum(chance.random() < 0.25 for _ in range(1000))


def test_the_folder_stays_within_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_features, "MOST_BYTES", 16_000)
    for _ in range(40):
        logged(tmp_path, 1.0, 3)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 16_000


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    assert logged(tmp_path / "file" / "below", 1.0, 3) == []
    assert len([record for record in caplog.records if "not logged" in record.message]) == 1
