"""Reads a YAML file as plain data, with the line of every key, so that messages can name the line of a mistake.

Only `serving.config` and its parts use this. A key given twice, which YAML accepts silently, is a mistake here.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from serving.text_file import UnreadableText, read_text

KeyPath = tuple[str | int, ...]
MAX_CHARACTERS = 1 << 20
MAX_VALUES = 50_000  # an alias counts as often as it is used
MAX_MISTAKES, MAX_MISTAKE = 50, 1000  # how many are reported, and how many characters of each


class SettingsError(Exception):
    """The settings cannot be used. One line per mistake: file, line, key, what is wrong and what would be right."""

    def __init__(self, mistakes: list[str]) -> None:
        lines = [text if len(text) <= MAX_MISTAKE else f"{text[:MAX_MISTAKE]} ..." for text in mistakes[:MAX_MISTAKES]]
        if len(mistakes) > MAX_MISTAKES:
            lines.append(f"... and {len(mistakes) - MAX_MISTAKES} more mistakes")
        super().__init__("\n".join(lines))
        self.mistakes = tuple(lines)


@dataclass(frozen=True)
class Source:
    """The file from which settings were read: its data, and the line of each key by the key's path."""

    path: Path
    data: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.path.resolve().parent

    def line_of(self, key: KeyPath) -> int | None:
        """Returns the line of the key, or of the innermost section around it that is in the file; None if none is."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.lines:
                return self.lines[key[:length]]
        return None

    def locate(self, key: KeyPath) -> str:
        """Returns `demo.yaml:14: models[0].name`, without the line or the key where that is unknown."""
        line = self.line_of(key)
        place = f"{self.path}:{line}" if line else f"{self.path}"
        return f"{place}: {written(key)}" if key else place


class _Loader(yaml.SafeLoader):
    """A loader that stops at the first value too many, instead of reading the rest of a large file.

    Raises SettingsError then. Aliases are counted once here."""

    def __init__(self, text: str, path: Path) -> None:
        super().__init__(text)
        self._path = path
        self._values = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._values += 1
        if self._values > MAX_VALUES:
            raise _too_many(self._path, self.line + 1)
        return super().compose_node(parent, index)


def _too_many(path: Path, line: int) -> SettingsError:
    return SettingsError([f"{path}:{line}: holds more than {MAX_VALUES:,} values, aliases counted each time"])


def written(key: KeyPath) -> str:
    """Returns the path `("models", 0, "name")` as text: `models[0].name`."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read_source(path: Path) -> Source:
    """Reads the file's data. Raises `SettingsError` if it cannot be read, is not YAML, or names a key twice."""
    try:
        text = read_text(path)
    except UnreadableText as error:
        raise SettingsError([f"{path}: {error}"]) from error
    try:
        if len(text) > MAX_CHARACTERS:
            raise SettingsError(
                [f"{path}: has more than {MAX_CHARACTERS:,} characters; labels may have their own file"]
            )
        loader = _Loader(text, path)
        node = loader.get_single_node()
        if node is not None:
            _count(node, {}, path)
        data = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        raise SettingsError([_syntax_mistake(path, error)]) from error
    except yaml.YAMLError as error:
        raise SettingsError([f"{path}: is not valid YAML: {error}"]) from error
    except RecursionError:
        raise SettingsError([f"{path}: is nested too deeply"]) from None
    except ValueError as error:  # an impossible date, for example
        raise SettingsError([f"{path}: is not valid YAML: {error}"]) from error
    source = Source(path, data)
    twice: list[str] = []
    if node is not None:
        for key, line in _keys(node, ()):
            if key in source.lines and not isinstance(key[-1], int):
                twice.append(f"{path}:{line}: {written(key)}: is given twice; it is also on line {source.lines[key]}")
            source.lines.setdefault(key, line)
    if twice:
        raise SettingsError(twice)
    return source


def _count(node: yaml.Node, counted: dict[int, int | None], path: Path) -> int:
    """Counts the values in the node; those of an alias count each time that it is used. Raises SettingsError if there
    are too many, or if an alias contains itself: a few lines of aliases may stand for more than fits into memory.

    counted: the count of each node by its id; None while the node is being counted.
    """
    if id(node) not in counted:
        counted[id(node)] = None
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        pairs = isinstance(node, yaml.MappingNode)
        values = (value for part in parts for value in (part if pairs else (part,)))
        count = 1
        for value in values:
            count += _count(value, counted, path)
            if count > MAX_VALUES:
                raise _too_many(path, value.start_mark.line + 1)
        counted[id(node)] = count
    total = counted[id(node)]
    if total is None:
        raise SettingsError([f"{path}:{node.start_mark.line + 1}: an alias stands inside the value that it names"])
    return total


def _syntax_mistake(path: Path, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"{path}:{mark.line + 1}" if mark else f"{path}"
    hint = "; indent with spaces" if "'\\t'" in str(error.problem) else ""
    return f"{place}: is not valid YAML: {', '.join(filter(None, (error.context, error.problem)))}{hint}"


def _keys(node: yaml.Node, path: KeyPath) -> Iterator[tuple[KeyPath, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                yield (*path, key.value), key.start_mark.line + 1
                yield from _keys(value, (*path, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*path, index), item.start_mark.line + 1
            yield from _keys(item, (*path, index))
