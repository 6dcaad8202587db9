"""Records the requests of a replica so that they can be replayed: time, shapes, tenant, priority and deadline.

A request is one line of JSON, without payload; the tenant is a keyed hash. Recording is off unless a folder is set.
Files are written in a thread and bounded in size. `python -m loadtest run URL --scenario FILE` replays them.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from serving.bounded_folder import BoundedLines
from serving.core.backend import Answers, Backend, SequencePlace, Submitted
from serving.core.statistics import ModelStatistics
from serving.telemetry.deferred import Deferred

logger = logging.getLogger(__name__)
MOST_WAITING = 20_000  # requests kept in memory for the next write, at most 0.2 s later
KEY_FILE = "tenants.key"


class Asked(NamedTuple):
    """A recorded request. inputs: by name, the shape and, for BYTES tensors, the total number of bytes."""

    at_s: float
    tenant: str
    priority: int
    timeout_ns: int | None
    inputs: dict[str, tuple[tuple[int, ...], int | None]]


class Recording:
    """The recording of one replica.

    folder: shared by the replicas of a machine. most_bytes: the limit of all files in the folder together.
    """

    def __init__(self, folder: Path, *, model: str, datatypes: Mapping[str, str], most_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._model = model
        self._datatypes = datatypes
        self._key = tenant_key(folder)
        self._file = BoundedLines(folder, f"{model}_{os.getpid()}", most_bytes, self._warn)
        self._lines: Deferred[Asked] = Deferred(self._write, most=MOST_WAITING)

    def note(self, payload: object, tenant: str, priority: int, timeout_ns: int | None) -> None:
        """Records a request with the shapes and sizes of its inputs. Call it on the event loop."""
        if isinstance(payload, Mapping):
            inputs = {name: (array.shape, _bytes(array)) for name, array in payload.items()}
            self._lines.put(Asked(time.time(), tenant, priority, timeout_ns, inputs))

    @property
    def path(self) -> Path:
        """The file that the next line is written to."""
        return self._file.path

    def _write(self, requests: list[Asked]) -> None:
        self._file.append(json.dumps(self._line(one), separators=(",", ":")) + "\n" for one in requests)

    def _warn(self, error: OSError) -> None:
        logger.warning("%s: requests are not recorded: %s", self._model, error)

    def _line(self, asked: Asked) -> dict[str, Any]:
        inputs = {
            name: {"datatype": self._datatypes.get(name, ""), "shape": shape}
            | ({} if size is None else {"bytes": size})
            for name, (shape, size) in asked.inputs.items()
        }
        return {
            "at_s": round(asked.at_s, 6),
            "model": self._model,
            "tenant": hashed(asked.tenant, self._key),
            "priority": asked.priority,
            "deadline_ms": None if asked.timeout_ns is None else asked.timeout_ns / 1e6,
            "inputs": inputs,
        }


class Recorded:
    """A wrapper that records the requests of an engine. A `Backend`, `Sequencing` or `Generating` if the engine is."""

    def __init__(self, engine: Any, recording: Recording) -> None:
        self._engine = engine
        self._backend: Backend = engine
        self._note: Callable[[object, str, int, int | None], None] = recording.note

    def submit(
        self,
        payload: object,
        *,
        tenant: str = "",
        priority: int = 0,
        timeout_ns: int | None = None,
        **more: Any,
    ) -> Submitted:
        self._note(payload, tenant, priority, timeout_ns)
        return self._backend.submit(payload, tenant=tenant, priority=priority, timeout_ns=timeout_ns, **more)

    def submit_in(
        self,
        place: SequencePlace,
        payload: object,
        *,
        rows: int,
        tenant: str = "",
        priority: int = 0,
        timeout_ns: int | None = None,
        **more: Any,
    ) -> Submitted:
        self._note(payload, tenant, priority, timeout_ns)
        submitted: Submitted = self._engine.submit_in(
            place, payload, rows=rows, tenant=tenant, priority=priority, timeout_ns=timeout_ns, **more
        )
        return submitted

    def generate(
        self, payload: object, *, tenant: str = "", priority: int = 0, timeout_ns: int | None = None, **more: Any
    ) -> Answers:
        self._note(payload, tenant, priority, timeout_ns)
        answers: Answers = self._engine.generate(
            payload, tenant=tenant, priority=priority, timeout_ns=timeout_ns, **more
        )
        return answers

    def statistics(self) -> ModelStatistics:
        return self._backend.statistics()

    def is_ready(self) -> bool:
        return self._backend.is_ready()


def _bytes(array: np.ndarray) -> int | None:
    return sum(map(len, array.flat)) if array.dtype == object else None


def hashed(tenant: str, key: bytes) -> str:
    """Returns a keyed hash of the tenant, the same for the same tenant and key; "" (no tenant) stays ""."""
    return tenant and blake2b(tenant.encode(), key=key, digest_size=6).hexdigest()


def tenant_key(folder: Path) -> bytes:
    """Returns the key of the tenant hashes, which the first replica that needs it creates in the folder.

    Once the key file is deleted, recorded hashes can no longer be related to tenants.
    """
    path = folder / KEY_FILE
    own = path.with_suffix(f".{os.getpid()}")
    own.touch(mode=0o600)
    own.write_bytes(os.urandom(32))
    try:
        os.link(own, path)  # atomic, and fails if another replica has created the file
    except FileExistsError:
        return path.read_bytes()
    finally:
        own.unlink()
    return path.read_bytes()
