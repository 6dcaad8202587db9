"""Loads a scenario from a TOML file, a Python file or recorded requests. A Python file is imported, and runs."""

import importlib.util
import inspect
from pathlib import Path

from loadtest import recording, scenario_file
from loadtest.scenario import Scenario
from loadtest.spec import BadSpec


def load(path: Path) -> type[Scenario]:
    """Loads the scenario in a `.toml`, `.py` or recorded `.jsonl` file; `file.py:Name` selects one of several. Raises
    BadSpec."""
    name = ""
    if path.name.partition(".py:")[2]:
        name = path.name.partition(".py:")[2]
        path = path.with_name(path.name.partition(":")[0])
    if not path.is_file():
        raise BadSpec(f"scenario: there is no file {path}")
    if path.suffix == ".toml":
        return scenario_file.read(path)
    if path.suffix == ".jsonl":
        return recording.read(path)
    return _from_python(path, name)


def _from_python(path: Path, name: str) -> type[Scenario]:
    specification = importlib.util.spec_from_file_location(f"scenario_{path.stem}", path)
    if specification is None or specification.loader is None:
        raise BadSpec(f"scenario: expected a .py, .toml or .jsonl file, got {path}")
    module = importlib.util.module_from_spec(specification)
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        raise BadSpec(f"scenario: {path} cannot be imported: {type(error).__name__}: {error}") from error
    scenarios = {
        key: value
        for key, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, Scenario) and value.__module__ == module.__name__
    }
    if name and name not in scenarios:
        raise BadSpec(f"scenario: {path} has no Scenario {name!r}; it has {', '.join(scenarios) or 'none'}")
    if not name and len(scenarios) != 1:
        raise BadSpec(f"scenario: {path} has {', '.join(scenarios) or 'no Scenario'}; name one with {path}:NAME")
    return scenarios[name] if name else next(iter(scenarios.values()))
