"""The server. Its own packages are these here, whatever else of their names Python's path may hold."""

import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path


def _claim(name: str) -> None:
    """Imports our package of this name, where another one (a user's `models.py`) would be found first."""
    ours = Path(__file__).resolve().parents[1] / name / "__init__.py"
    found = find_spec(name)
    if found is not None and found.origin is not None and Path(found.origin).resolve() == ours:
        return
    spec = spec_from_file_location(name, ours)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = package = module_from_spec(spec)
    spec.loader.exec_module(package)


_claim("models")
