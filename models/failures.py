"""Formats the reason why a model could not be loaded. It may be shown to clients: it contains no traceback and no
values of options."""

import re
import traceback
from pathlib import Path

from models.beside import PRIVATE
from models.options import without_values
from models.spec import ModelSpec

LONGEST = 2000  # characters: torch lists every missing weight
OUR_SENTENCES = ("ModelNotLoadable", "SpecMismatch", "DoesNotFit")  # by name: importing two of them imports torch


def sentence(spec: ModelSpec, error: BaseException) -> str:
    """Returns the error's text and, if the error came from the model's own code, the file and line."""
    text = str(error).strip()[:LONGEST]
    if type(error).__name__ not in OUR_SENTENCES:
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if _is_theirs(frame.filename, spec)]
        if own:
            text += f" ({Path(own[-1].filename).name}, line {own[-1].lineno})"
    return _public(text, spec)


def traceback_text(spec: ModelSpec, error: BaseException) -> str:
    """Returns the traceback for the log, also without values of options."""
    return _public("".join(traceback.format_exception(error)), spec)


def _is_theirs(filename: str, spec: ModelSpec) -> bool:
    path = Path(filename)
    if spec.folder is not None and path.is_relative_to(spec.folder):
        return "site-packages" not in path.parts
    return False


def _public(text: str, spec: ModelSpec) -> str:
    return without_values(re.sub(rf"{PRIVATE}\d+\.", "", text), spec.options, spec.folder)
