"""Options of a factory: resolves the paths among them, and removes their values from texts that others may read."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# Characters. Replacing every `1` or `mlp` would make messages unreadable; longer values are replaced inside words too.
SHORTEST_SECRET, LONGER_THAN_A_WORD = 4, 12


def with_paths(options: Mapping[str, Any], folder: str | None) -> dict[str, Any]:
    """Returns the options with relative paths resolved against the folder of the settings.

    A text is a path if it begins with `./` or `../`, or if it holds a `.` or `/` and exists in that folder.
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
    """Returns the text with each value of an option replaced by `<options.key>`."""
    keys: dict[str, str] = {}
    for given in (with_paths(options, folder), options):
        for key, value in _scalars("options", given):
            for shown in (str(value), repr(value)[1:-1] if isinstance(value, str) else str(value)):
                if len(shown) >= SHORTEST_SECRET:
                    keys.setdefault(shown, key)
    if not keys:
        return text
    longest_first = sorted(keys, key=len, reverse=True)
    pattern = re.compile("|".join(map(_pattern, longest_first)))
    return pattern.sub(lambda match: f"<{keys[match[0]]}>", text)


def _pattern(shown: str) -> str:
    exact = re.escape(shown)
    return exact if len(shown) >= LONGER_THAN_A_WORD else rf"(?<!\w){exact}(?!\w)"


def _scalars(key: str, value: Any) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _scalars(f"{key}.{name}", item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _scalars(f"{key}[{index}]", item)
    elif value is not None and not isinstance(value, bool):
        yield key, value
