"""Keeps a folder of files that are only appended to within a size, by deleting the oldest files."""

from collections.abc import Callable, Iterable
from pathlib import Path

PARTS = 8  # a file holds this part of the folder's size; the oldest files are deleted to make room


def make_room(folder: Path, pattern: str, most_bytes: int) -> None:
    """Deletes the oldest files of this pattern until a new one fits. Files of processes that no longer exist count too.

    most_bytes: the most that they hold together, the new one included."""
    files = []
    for path in folder.glob(pattern):
        try:
            files.append((path.stat().st_mtime, path.stat().st_size, path))
        except FileNotFoundError:
            continue  # another process made room
    room = most_bytes - most_bytes // PARTS
    for _, size, path in sorted(files, reverse=True):
        room -= size
        if room < 0:
            path.unlink(missing_ok=True)


class BoundedLines:
    """The files `<name>_<part>.jsonl` of one process in a folder that all of a machine share.

    most_bytes: the limit of all `.jsonl` files of the folder together. fail: is told why lines were lost, once until
    writing works again.
    """

    def __init__(self, folder: Path, name: str, most_bytes: int, fail: Callable[[OSError], None]) -> None:
        self._folder = folder
        self._name = name
        self._most_bytes = most_bytes
        self._fail = fail
        self._part = 0
        self._is_failing = False

    @property
    def path(self) -> Path:
        """The file that the next line is written to."""
        return self._folder / f"{self._name}_{self._part}.jsonl"

    def append(self, lines: Iterable[str]) -> None:
        """Appends lines, each with its end. Blocks: call it in a thread."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            make_room(self._folder, "*.jsonl", self._most_bytes)
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(lines)
            if self.path.stat().st_size > self._most_bytes // PARTS:
                self._part += 1
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:
                self._fail(error)
            self._is_failing = True
