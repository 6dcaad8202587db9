"""Lets calls of files and folders fail, one after another, to see what is left of the work."""

import builtins
import fcntl
import os
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from serving.features.offline import spool

CALLS = (
    (os, "fsync"),
    (os, "fstat"),
    (os, "open"),
    (os, "link"),
    (os, "rename"),
    (os, "unlink"),
    (fcntl, "flock"),
    (builtins, "open"),
    (Path, "mkdir"),
    (Path, "unlink"),
    (pq, "write_table"),
)


class Killed(Exception):
    """Raised in place of a call that a killed process does not come to make."""


def failing_at(patch: pytest.MonkeyPatch, number: int, error: Exception, *, once: bool = False) -> Callable[[], int]:
    """Lets this call (from 0) of a file or folder fail, and later ones unless `once`. Returns how many were made."""
    made = 0

    def failing(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            nonlocal made
            made += 1
            if made == number + 1 or (made > number and not once):
                raise error
            return call(*arguments, **options)

        return called

    def while_patched(call: Callable[..., Any]) -> Callable[..., Any]:
        return failing(call) if vars(spool)["FileIO"] is Faulty else call  # a file may live on

    class Faulty(FileIO):
        """A file of which every call may fail."""

        def __init__(self, *arguments: Any) -> None:
            while_patched(super().__init__)(*arguments)

        def write(self, data: Any) -> int:
            part = data[: max(len(data) // 2, 100)]  # a disk may take a part
            return int(while_patched(super().write)(part))

        def close(self) -> None:
            if not self.closed:
                super().close()
                while_patched(lambda: None)()  # over a network, the file is closed then nevertheless

        def truncate(self, size: int | None = None) -> int:
            return int(while_patched(super().truncate)(size))

    for owner, name in CALLS:
        patch.setattr(owner, name, failing(getattr(owner, name)))
    patch.setattr(spool, "FileIO", Faulty)
    return lambda: made
