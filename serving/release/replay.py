"""Reads the latest recorded requests of a model from the files of this machine (`serving/telemetry/recording.py`)."""

import json
from collections import deque
from pathlib import Path
from typing import Any

MOST_BYTES = 64 << 20  # of one file that are read, its end


def recorded(folder: Path, model: str, most: int) -> list[dict[str, Any]]:
    """Returns the inputs of the latest requests by name, as recorded, the oldest first. Lines that cannot be read, and
    those of other models, are left out. Blocks."""
    if most < 1:
        return []
    found: list[tuple[float, dict[str, Any]]] = []
    for path in folder.glob(f"{model}_*.jsonl"):
        found += _latest(path, model, most)
    found.sort(key=lambda one: one[0])
    return [inputs for _, inputs in found[-most:]]


def _latest(path: Path, model: str, most: int) -> list[tuple[float, dict[str, Any]]]:
    kept: deque[tuple[float, dict[str, Any]]] = deque(maxlen=most)
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - MOST_BYTES))
            for line in file:
                if (one := _request(line, model)) is not None:
                    kept.append(one)
    except OSError:
        return []
    return list(kept)


def _request(line: bytes, model: str) -> tuple[float, dict[str, Any]] | None:
    try:
        told = json.loads(line)
        if told["model"] != model or not isinstance(told["inputs"], dict):
            return None
        return float(told["at_s"]), told["inputs"]
    except (ValueError, LookupError, TypeError):
        return None
