"""Scenarios in TOML, for the common cases: the model's declared inputs, filled with values of given sizes."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadtest.distribution import Distribution
from loadtest.scenario import Inputs, Scenario, Task
from loadtest.spec import BadSpec

_SETTINGS: Mapping[str, type | tuple[type, ...]] = {
    "question": str,
    "model": str,
    "tenants": dict,
    "headers": dict,
    "think": (str, int, float),
    "arrivals": str,
    "rate": (int, float),
    "seconds": (int, float),
    "variety": int,
}
_SIZES = ("rows", "length", "words", "side")
_TASK: Mapping[str, type | tuple[type, ...]] = {
    "weight": (int, float),
    "model": str,
    "priority": int,
    "deadline_ms": (int, float),
    **dict.fromkeys(_SIZES, (str, int, float)),
}


def read(path: Path) -> type[Scenario]:
    """Reads a TOML scenario. Raises BadSpec, which names the key."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSpec(f"scenario: {path}: {error}") from None
    return from_table(table, name=path.stem)


def from_table(table: Mapping[str, Any], name: str) -> type[Scenario]:
    """Builds a scenario from a parsed table; the command line passes its options as one. Raises BadSpec."""
    tasks = table.get("tasks", {"fill": {}})
    if not isinstance(tasks, dict) or not tasks:
        raise BadSpec(f"tasks: expected one or more tables [tasks.NAME], got {tasks!r}")
    settings = {key: value for key, value in table.items() if key != "tasks"}
    _check(settings, _SETTINGS, "")
    if "think" in settings:
        settings["think"] = str(settings["think"])
        Distribution.parse(settings["think"], "think")
    made = [_task(key, value) for key, value in tasks.items()]
    # Tasks are not defined as methods, because a task may have the name of a method, such as `fill`.
    return type(name, (Scenario,), {**settings, "tasks": classmethod(lambda cls: made)})


def _task(name: str, table: object) -> Task:
    if not isinstance(table, dict):
        raise BadSpec(f"tasks.{name}: expected a table, got {table!r}")
    _check(table, _TASK, f"tasks.{name}.")
    sizes = {key: table[key] for key in _SIZES if key in table}
    for key, size in sizes.items():
        Distribution.parse(size, f"tasks.{name}.{key}")

    def make(scenario: Scenario) -> Inputs:
        return scenario.fill(**sizes)

    options = {key: value for key, value in table.items() if key not in _SIZES}
    return Task(name=name, make=make, **{"weight": 1, **options})


def _check(settings: Mapping[str, Any], known: Mapping[str, type | tuple[type, ...]], where: str) -> None:
    for key, value in settings.items():
        if key not in known:
            raise BadSpec(f"{where}{key}: no such key; there are {', '.join(known)}")
        kinds = known[key]
        if not isinstance(value, kinds) or isinstance(value, bool):
            names = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
            raise BadSpec(f"{where}{key}: expected {names}, got {value!r}")
