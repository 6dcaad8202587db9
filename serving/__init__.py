"""The server. Importing it makes sure that `models` is Headway's own package, whatever else Python's path holds."""

import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path


def _claim(name: str) -> None:
    """Imports Headway's package of this name if Python would find another one first (a user's `models.py`)."""
    ours = Path(__file__).resolve().parents[1] / name / "__init__.py"
    first = find_spec(name)
    if first is not None and first.origin is not None and Path(first.origin).resolve() == ours:
        return
    spec = spec_from_file_location(name, ours)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = package = module_from_spec(spec)
    spec.loader.exec_module(package)


_claim("models")
