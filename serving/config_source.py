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
MAX_CHARACTERS = 1 << 20
MAX_VALUES = 50_000  # with all that aliases repeat
MAX_MISTAKES, MAX_MISTAKE = 50, 1000  # how many are told, and how many characters of each


class SettingsError(Exception):
    """The settings cannot be used. One line per mistake: file, line, key, what is wrong and what would be right."""

    def __init__(self, mistakes: list[str]) -> None:
        told = [text if len(text) <= MAX_MISTAKE else f"{text[:MAX_MISTAKE]} ..." for text in mistakes[:MAX_MISTAKES]]
        if len(mistakes) > MAX_MISTAKES:
            told.append(f"... and {len(mistakes) - MAX_MISTAKES} mistakes more")
        super().__init__("\n".join(told))
        self.mistakes = tuple(told)


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
        if len(text) > MAX_CHARACTERS:
            raise SettingsError(
                [f"{path}: has more than {MAX_CHARACTERS:,} characters; labels may have their own file"]
            )
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            _count(node, {}, path)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        raise SettingsError([_syntax_mistake(path, error)]) from error
    except yaml.YAMLError as error:
        raise SettingsError([f"{path}: is not valid YAML: {error}"]) from error
    except RecursionError:
        raise SettingsError([f"{path}: is nested too deeply"]) from None
    except ValueError as error:  # a date that is none, say
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
    """How many values there are in the node, those of aliases each time again. Raises SettingsError where there are too
    many, or without end: a few lines of aliases stand for more than fits into memory.

    counted: what is known, by node; None while it is being counted.
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
                line = value.start_mark.line + 1
                raise SettingsError(
                    [f"{path}:{line}: holds more than {MAX_VALUES:,} values, aliases counted each time"]
                )
        counted[id(node)] = count
    found = counted[id(node)]
    if found is None:
        raise SettingsError([f"{path}:{node.start_mark.line + 1}: an alias stands within what it names"])
    return found


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
