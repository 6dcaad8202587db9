"""Python's path of the processes that Ray starts: nothing on it may hide a package of Headway's."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # where our packages lie
OURS = ("models", "serving", "loadtest")
OUR_FILES = [ROOT / name / "__init__.py" for name in OURS]


def claim_python_path(settings_folder: str | None) -> list[str]:
    """Takes what hides our packages out of PYTHONPATH. Returns what was there besides the folder of the settings, whose
    modules are found without it."""
    places = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    hiding = [place for place in places if _hides_ours(Path(place))]
    if hiding:
        os.environ["PYTHONPATH"] = os.pathsep.join(place for place in places if place not in hiding)
    return [place for place in hiding if str(Path(place).resolve()) != settings_folder]


def _hides_ours(place: Path) -> bool:
    files = [file for name in OURS for file in (place / name / "__init__.py", place / f"{name}.py")]
    return any(file.is_file() and file.resolve() not in OUR_FILES for file in files)
