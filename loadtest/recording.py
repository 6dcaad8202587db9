"""Builds a scenario from a server's recording (`server.record_folder`): the same requests in the same order, at the
same instants, with their shapes, tenants, priorities and deadlines, and made-up contents."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from loadtest.scenario import Inputs, Scenario, Task
from loadtest.spec import BadSpec
from serving.protocol.tensors import object_array

MOST_KINDS = 20_000  # different requests, all prepared before the run


def read(path: Path) -> type[Scenario]:
    """Reads a recording: one line of JSON per request, in any order; files of several replicas may be concatenated.
    Raises BadSpec."""
    lines = sorted(_lines(path), key=lambda line: line["at_s"])
    if not lines:
        raise BadSpec(f"scenario: {path} contains no request")
    kinds: dict[str, Task] = {}
    sequence: list[int] = []
    places: dict[str, int] = {}
    for line in lines:
        key = json.dumps([line["model"], line["inputs"], line["tenant"], line["priority"], line["deadline_ms"]])
        if key not in places:
            places[key] = len(places)
            kinds[key] = _task(line)
        sequence.append(places[key])
    if len(kinds) > MOST_KINDS:
        raise BadSpec(f"scenario: {path} has {len(kinds)} different requests, at most {MOST_KINDS} allowed; shorten it")
    made = list(kinds.values())
    settings = {
        "question": f"the requests recorded in {path.name}",
        "arrivals": f"replay({path})",
        "seconds": lines[-1]["at_s"] - lines[0]["at_s"] + 1.0,
        "variety": 1,
        "sequence": tuple(sequence),
    }
    return type(path.stem, (Scenario,), {**settings, "tasks": classmethod(lambda cls: made)})


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        whole = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadSpec(f"scenario: {path}: {error}") from None
    lines = []
    for number, text in enumerate(whole.split("\n"), start=1):  # `splitlines` would also split at U+2028 and others
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            line["at_s"] + 0.0, line["model"], line["tenant"], line["priority"], line["deadline_ms"]
            for tensor in line["inputs"].values():
                tensor["datatype"], list(tensor["shape"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadSpec(f"scenario: {path}:{number} is not a recorded request: {error!r}") from None
        lines.append(line)
    return lines


def _task(line: Mapping[str, Any]) -> Task:
    inputs = line["inputs"]

    def make(scenario: Scenario) -> Inputs:
        return {key: _values(scenario, tensor) for key, tensor in inputs.items()}

    return Task(
        name=line["model"],
        weight=1,
        make=make,
        model=line["model"],
        tenant=line["tenant"],
        priority=line["priority"],
        deadline_ms=line["deadline_ms"] or 0.0,
    )


def _values(scenario: Scenario, tensor: Mapping[str, Any]) -> Any:
    if tensor["datatype"] != "BYTES":
        return scenario.array(tensor["shape"], tensor["datatype"])
    count = int(np.prod(tensor["shape"]))
    size, remainder = divmod(tensor.get("bytes", 0), max(1, count))
    texts = [_text(scenario, size + (index < remainder)) for index in range(count)]
    return object_array(texts, tuple(tensor["shape"]))


def _text(scenario: Scenario, size: int) -> bytes:
    """Returns English text of exactly this many bytes."""
    words = b""
    while len(words) < size:
        words += scenario.sentence(max(1, (size - len(words)) // 5)) + b" "
    return words[:size]
