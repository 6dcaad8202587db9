"""Python files as syntax trees, with the two things that the rules need: their imports, and the names they use."""

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.tidy.tables import ROOT

Found = tuple[tuple[ast.AST, str], ...]


@dataclass(frozen=True)
class Source:
    """One file: its path, its module name and its text."""

    path: Path
    module: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self.path))

    def at(self, node: ast.AST) -> str:
        return f"{self.path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"

    @cached_property
    def imports(self) -> Found:
        """Every imported module. For `from a import b` it is `a.b` if that is a file or folder of this repository."""
        return tuple(self._imports())

    @cached_property
    def uses(self) -> Found:
        """Every used name in full, however it was imported: after `import time as clock`, `clock.time` is `time.time`.

        Importing a name counts as its use. A name that was not imported stays as it is in the text.
        """
        return tuple(self._uses())

    def _imports(self) -> Iterator[tuple[ast.AST, str]]:
        for node in ast.walk(self.tree):
            match node:
                case ast.Import():
                    yield from ((node, alias.name) for alias in node.names)
                case ast.ImportFrom():
                    package = self._package(node)
                    for alias in node.names:
                        inner = f"{package}.{alias.name}"
                        yield node, inner if _is_file(inner) else package
                case ast.Call(
                    func=ast.Name(id=called) | ast.Attribute(attr=called), args=[ast.Constant(str(name)), *_]
                ):
                    if called in ("import_module", "__import__"):
                        yield node, name

    def _uses(self) -> Iterator[tuple[ast.AST, str]]:
        origin: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                origin |= {alias.asname: alias.name for alias in node.names if alias.asname}
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    full = f"{self._package(node)}.{alias.name}"
                    origin[alias.asname or alias.name] = full
                    yield node, full
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Name | ast.Attribute):
                root, dot, rest = _dotted(node).partition(".")
                yield node, origin.get(root, root) + dot + rest

    def _package(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.module.split(".")
        up = node.level - (self.path.name == "__init__.py")
        return ".".join([*parts[: len(parts) - up], *filter(None, [node.module])])


def sources(*folders: str) -> list[Source]:
    """Returns the sources of all Python files in these folders of the repository."""
    found = []
    for path in sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Source(path, module, path.read_text()))
    return found


def source_of(module: str, text: str) -> Source:
    """Returns a source with this text for a module whose file need not exist."""
    return Source(ROOT.joinpath(*module.split(".")).with_suffix(".py"), module, text)


def within(module: str, places: Collection[str]) -> bool:
    """Returns whether the module is one of `places` or inside one of them."""
    return any(module == place or module.startswith(f"{place}.") for place in places)


def _dotted(node: ast.expr) -> str:
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute():
            return f"{_dotted(node.value)}.{node.attr}"
        case _:
            return "()"  # the result of a call, for example


def _is_file(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()
