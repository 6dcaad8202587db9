"""Moves what was pushed from the spool into the files of the offline store.

Files of the store are named by what is in them, and a file of the spool is removed after they are there: what was ended
in between is done again, and adds nothing twice. Needs no settings: a push says of which types its features are.
`python -m serving.features.offline.drain FOLDER PLACE` prints a line for each file that gave trouble.
"""

import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from serving.features.offline import layout
from serving.features.offline.files import Store, files_in, open_store
from serving.features.offline.spool import FOLDER, SUFFIX, Push
from serving.features.views import Feature, FeatureView

PIECE_BYTES = 1 << 20  # of lines that become files at once; another number makes other files of a file half done


def drain(root: Path, store: Store | None = None) -> list[str]:
    """Moves the rows of all spool files that nobody writes to. Returns a sentence for each that gave trouble.

    root: the folder of the spool. store: where the rows go; None: that folder."""
    troubles: list[str] = []
    for path in sorted((root / FOLDER).glob(f"*{SUFFIX}")):
        try:
            with open(path, "r+b") as file:  # a lock over a network needs a file open for writing
                troubles += _drained(root if store is None else store, path, file)
        except OSError as error:
            if path.exists():  # else another process has drained it
                troubles.append(f"{path}: stays for now: {error}")
    return troubles


def _drained(store: Store, path: Path, file: BinaryIO) -> Iterator[str]:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # it is written, or another process drains it
    if not os.fstat(file.fileno()).st_nlink:
        return  # another process has drained it
    unreadable = 0
    for lines in _pieces(file):
        if not lines[-1].endswith(b"\n"):
            yield f"{path}: its last line is torn and left out; that push was not answered"
            lines.pop()
        unreadable += _store(store, lines)
    if unreadable:
        aside = path.with_suffix(".unreadable")
        os.rename(path, aside)
        yield f"{aside}: {unreadable} lines are no pushes; the others are stored, and the file is kept"
    else:
        os.unlink(path)


def _pieces(file: BinaryIO) -> Iterator[list[bytes]]:
    while lines := file.readlines(PIECE_BYTES):
        yield lines


def _store(store: Store, lines: Sequence[bytes]) -> int:
    """Adds the pushes in the lines to the store. Returns how many lines are none. Raises OSError."""
    alike: dict[tuple[str, ...], list[tuple[Push, bytes]]] = {}  # of one tenant, view and version, with equal types
    unreadable = 0
    for line in lines:
        try:
            push = Push(**json.loads(line))
            folder = str(layout.view_folder(files_in(store).root, push.tenant, push.view))
            kind = folder, push.version, *push.types.keys(), *push.types.values()
            alike.setdefault(kind, []).append((push, line))
        except (ValueError, TypeError, AttributeError, RecursionError):
            unreadable += 1
    for pushes in alike.values():
        first = pushes[0][0]
        view = _view_of(first)
        try:
            rows = _table(view, [push for push, _ in pushes])
        except (KeyError, ValueError, TypeError, OverflowError, AttributeError, pa.ArrowException):
            unreadable += len(pushes)
        else:
            content = hashlib.sha256(b"".join(line for _, line in pushes)).hexdigest()[:40]
            layout.append(store, first.tenant, view, rows, name=content)
    return unreadable


def _view_of(push: Push) -> FeatureView:
    """Returns the view as far as its files need it."""
    features = tuple(Feature(name=name, datatype=datatype) for name, datatype in push.types.items())
    return FeatureView(name=push.view, entity="", key="", features=features, version=push.version)


def _table(view: FeatureView, pushes: Sequence[Push]) -> pa.Table:
    rows = [row for push in pushes for row in push.rows]
    values = [values for _, _, values in rows]
    columns = {
        feature.name: pa.array([of_row.get(feature.name) for of_row in values], layout.TYPES[feature.datatype])
        for feature in view.features
    }
    cleared = [[name for name, value in of_row.items() if value is None] or None for of_row in values]
    event = [event_ms * 1000 for _, event_ms, _ in rows]
    created = [push.created_us for push in pushes for _ in push.rows]
    return layout.rows_of(
        view,
        pa.array([id for id, _, _ in rows], pa.string()),
        pa.table(columns),
        pa.array(event, pa.int64()).cast(layout.TIME),
        pa.array(created, pa.int64()).cast(layout.TIME),
        pa.array(cleared, pa.list_(pa.string())),
    )


if __name__ == "__main__":  # as the front calls it once a minute
    os.nice(10)
    own = Path(sys.argv[1])
    print(*drain(own, open_store(sys.argv[2], own)), sep="\n", end="")
