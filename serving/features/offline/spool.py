"""The spool: rows that were pushed, on disk before the push is answered, until `drain` moves them into Parquet files.

    <root>/spool/<name>.jsonl

A line of JSON is a push. A process writes to a file of its own, and holds its lock (flock) for as long: a file that
nobody holds gets no more lines, because it was ended, or because its process was. Needs no pyarrow.
"""

import asyncio
import fcntl
import json
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from io import FileIO
from pathlib import Path
from secrets import token_hex
from threading import Lock
from typing import NamedTuple
from urllib.parse import quote

from serving.core.clock import Clock
from serving.features.offline.settling import settle
from serving.features.rows import Row
from serving.features.views import FeatureView, Scalar

FOLDER, SUFFIX = "spool", ".jsonl"
MOST_BYTES = 8 << 20  # of a file, after which the next is begun
MOST_WAITING_ROWS = 200_000  # for the disk; pushes beyond it are refused
LONGEST_TENANT = 255 - len("tenant=")  # bytes, percent-encoded, of which a file system makes a folder
PATIENCE_S = 10.0  # for the disk

logger = logging.getLogger("ray.serve")


class Push(NamedTuple):
    """The rows of one push, each with the entity's id, the event time in ms since 1970 and the values.

    types: the datatype of every feature of the view. created_us: when the push was taken, in µs since 1970.
    """

    tenant: str
    view: str
    version: str
    types: Mapping[str, str]
    created_us: int
    rows: Sequence[tuple[str, int, Mapping[str, Scalar | None]]]


class Spool:
    """The file that this process writes. Pushes that arrive during a write share the next one.

    root: the folder of the offline store. calendar: the time of day.
    """

    def __init__(self, root: Path, calendar: Clock) -> None:
        self.root = root
        self.folder = root / FOLDER
        self._calendar = calendar
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="features-spool")
        self._lock = Lock()  # of the four below
        self._waiting: list[Push] = []
        self._waiting_rows = 0
        self._outcome: Future[None] = Future()  # of those that wait
        self._last_us = 0
        self._file: FileIO | None = None  # of the thread alone, as what follows
        self._is_failing = False

    async def append(self, tenant: str, view: FeatureView, rows: Sequence[Row]) -> None:
        """Returns when the rows are on the disk. Raises ValueError for a tenant whose name is too long for a folder.

        Raises OSError; the rows may be on the disk by then, and the same rows again do no harm."""
        if len(quote(tenant, safe="")) > LONGEST_TENANT:
            raise ValueError(f"the tenant's name has more than {LONGEST_TENANT} bytes in percent-encoding")
        try:
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.shield(asyncio.wrap_future(self._enqueue(tenant, view, rows)))
        except TimeoutError:
            raise TimeoutError(f"the disk has not answered for {PATIENCE_S:g} s") from None

    def end_file(self) -> None:
        """Ends the file once what waits is written, so that it can be drained. Blocks."""
        self._thread.submit(self._end_file).result()

    def _enqueue(self, tenant: str, view: FeatureView, rows: Sequence[Row]) -> Future[None]:
        types = {feature.name: feature.datatype for feature in view.features}
        with self._lock:
            if self._waiting_rows >= MOST_WAITING_ROWS:
                raise OSError(f"{self._waiting_rows:,} rows wait for the disk already")
            # No two pushes get one time, so that of rows with one event time the order is known.
            self._last_us = max(self._calendar.now_ns() // 1000, self._last_us + 1)
            told = [(row.id, row.event_ms, row.values) for row in rows]
            self._waiting.append(Push(tenant, view.name, view.version, types, self._last_us, told))
            self._waiting_rows += len(told)
            if len(self._waiting) == 1:
                self._outcome = self._thread.submit(self._write_waiting)
            return self._outcome

    def _write_waiting(self) -> None:
        with self._lock:
            pushes, self._waiting, self._waiting_rows = self._waiting, [], 0
        lines = b"".join(json.dumps(push._asdict(), separators=(",", ":")).encode() + b"\n" for push in pushes)
        try:
            self._write(lines)
        except OSError as error:
            if not self._is_failing:
                logger.error("features: pushes are refused, they cannot be kept in %s: %s", self.folder, error)
            self._is_failing = True
            raise
        if self._is_failing:
            logger.warning("features: pushes are taken again")
        self._is_failing = False

    def _write(self, lines: bytes) -> None:
        if self._file is None:
            self._file = _created(self.folder)
        file, size = self._file, self._file.tell()
        try:
            rest = memoryview(lines)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except BaseException:
            self._file = None
            _give_up(file, size)
            raise
        if file.tell() >= MOST_BYTES:
            self._end_file()

    def _end_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


def _created(folder: Path) -> FileIO:
    """Returns a new file with its lock held. Its name is on the disk."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    while True:
        file = FileIO(folder / f"{token_hex(16)}{SUFFIX}", "x")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:
                for above in (folder, folder.parent, folder.parent.parent):
                    settle(above)
                return file
        except BaseException:
            _give_up(file, 0)
            raise
        file.close()  # it was drained, and removed, before it had its lock


def _give_up(file: FileIO, size: int) -> None:
    """Ends a file after a write that failed. What was written of it counts for nothing, so it may stay.

    size: before that write, in bytes."""
    with suppress(OSError):
        if size:
            file.truncate(size)
        else:
            Path(os.fsdecode(file.name)).unlink()
    with suppress(OSError):
        file.close()
