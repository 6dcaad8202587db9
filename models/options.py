"""Options of a factory: which of them are paths, and how their values are kept out of what others may read."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SHORTEST_SECRET = 4  # characters: hiding every `1` or `mlp` would leave no sentence readable


def with_paths(options: Mapping[str, Any], folder: str | None) -> dict[str, Any]:
    """The options with paths that count from the folder of the settings.

    A text is a path if it begins with `./` or `../`, or if it holds a `.` or `/` and names something in that folder.
    """
    return {key: value if folder is None else _with_paths(value, Path(folder)) for key, value in options.items()}


def _with_paths(value: Any, folder: Path) -> Any:
    if isinstance(value, str):
        return str(folder / value) if _is_path(value, folder) else value
    if isinstance(value, list):
        return [_with_paths(item, folder) for item in value]
    if isinstance(value, dict):
        return {key: _with_paths(item, folder) for key, item in value.items()}
    return value


def _is_path(text: str, folder: Path) -> bool:
    if text.startswith(("./", "../")):
        return True
    if not re.search(r"\w", text) or not re.search(r"[./]", text):
        return False
    try:
        return (folder / text).exists()
    except (OSError, ValueError):  # too long for a path, or with a null character
        return False


def without_values(text: str, options: Mapping[str, Any], folder: str | None = None) -> str:
    """The text with `<options.key>` wherever it told the value of an option."""
    found: dict[str, str] = {}
    for given in (with_paths(options, folder), options):
        for key, value in _scalars("options", given):
            for told in (str(value), repr(value)[1:-1] if isinstance(value, str) else str(value)):
                if len(told) >= SHORTEST_SECRET:
                    found.setdefault(told, key)
    if not found:
        return text
    longest_first = sorted(found, key=len, reverse=True)
    pattern = re.compile("|".join(rf"(?<!\w){re.escape(told)}(?!\w)" for told in longest_first))
    return pattern.sub(lambda match: f"<{found[match[0]]}>", text)


def _scalars(key: str, value: Any) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _scalars(f"{key}.{name}", item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _scalars(f"{key}[{index}]", item)
    elif value is not None and not isinstance(value, bool):
        yield key, value
