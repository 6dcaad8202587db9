"""A YAML file as plain data, with the line of every key, so that a mistake can be pointed at.

Only `serving.config` uses this. What YAML would swallow silently (a key given twice) is a mistake here.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from serving.text_file import UnreadableText, read_text

KeyPath = tuple[str | int, ...]


class SettingsError(Exception):
    """The settings cannot be used. One line per mistake: file, line, key, what is wrong and what would be right."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


@dataclass(frozen=True)
class Source:
    """Where settings came from: the file, and the line of each key by its path."""

    path: Path
    data: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.path.resolve().parent

    def line_of(self, key: KeyPath) -> int | None:
        """The line of the key, or of the nearest thing around it that is in the file."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.lines:
                return self.lines[key[:length]]
        return None

    def locate(self, key: KeyPath) -> str:
        """`demo.yaml:14: models[0].name`, as far as that is known."""
        line = self.line_of(key)
        place = f"{self.path}:{line}" if line else f"{self.path}"
        return f"{place}: {written(key)}" if key else place


def written(key: KeyPath) -> str:
    """`("models", 0, "name")` as people write it: `models[0].name`."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read_source(path: Path) -> Source:
    """The file's data. Raises `SettingsError` if it cannot be read, is not YAML, or names a key twice."""
    try:
        text = read_text(path)
    except UnreadableText as error:
        raise SettingsError([f"{path}: {error}"]) from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        raise SettingsError([_syntax_mistake(path, error)]) from error
    except yaml.YAMLError as error:
        raise SettingsError([f"{path}: is not valid YAML: {error}"]) from error
    source = Source(path, data)
    twice: list[str] = []
    if node is not None:
        for key, line in _keys(node, (), frozenset()):
            if key in source.lines and not isinstance(key[-1], int):
                twice.append(f"{path}:{line}: {written(key)}: is given twice; it is also on line {source.lines[key]}")
            source.lines.setdefault(key, line)
    if twice:
        raise SettingsError(twice)
    return source


def _syntax_mistake(path: Path, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"{path}:{mark.line + 1}" if mark else f"{path}"
    hint = "; indent with spaces" if "'\\t'" in str(error.problem) else ""
    return f"{place}: is not valid YAML: {', '.join(filter(None, (error.context, error.problem)))}{hint}"


def _keys(node: yaml.Node, path: KeyPath, above: frozenset[int]) -> Iterator[tuple[KeyPath, int]]:
    if id(node) in above:  # an alias to what it stands in
        return
    above |= {id(node)}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                yield (*path, key.value), key.start_mark.line + 1
                yield from _keys(value, (*path, key.value), above)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*path, index), item.start_mark.line + 1
            yield from _keys(item, (*path, index), above)
