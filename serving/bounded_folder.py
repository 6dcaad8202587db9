"""Keeps a folder of files that are only appended to within a size, by deleting the oldest files."""

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
