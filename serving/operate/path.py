"""Cleans the PYTHONPATH of the processes that Ray starts, so that no folder on it hides a package of Headway's."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # the folder of our packages
OURS = ("models", "serving", "loadtest")
OUR_FILES = [ROOT / name / "__init__.py" for name in OURS]


def claim_python_path(settings_folder: str | None) -> list[str]:
    """Removes folders that hide our packages from PYTHONPATH. Returns the removed folders except the folder of the
    settings, whose modules are found without it."""
    places = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    hiding = [place for place in places if _hides_ours(Path(place))]
    if hiding:
        os.environ["PYTHONPATH"] = os.pathsep.join(place for place in places if place not in hiding)
    return [place for place in hiding if str(Path(place).resolve()) != settings_folder]


def _hides_ours(place: Path) -> bool:
    files = [file for name in OURS for file in (place / name / "__init__.py", place / f"{name}.py")]
    return any(file.is_file() and file.resolve() not in OUR_FILES for file in files)
