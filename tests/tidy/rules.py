"""The rules. Each returns the places that break it, with what to write instead.

A rule with exceptions takes its table as an argument, so that a test can leave a permission out and check whether it
is needed.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain

from tests.tidy.sources import Source, within
from tests.tidy.tables import (
    APART,
    CLOCK_OWNERS,
    DISTRIBUTIONS,
    HOUSE,
    OPTIONAL,
    OUTSIDE_CORE,
    PACKAGES,
    PRINTERS,
    ROOT,
    STDLIB_ONLY,
    TASK_OWNERS,
    THIRD_PARTY,
)

CLOCKS = {
    *(f"time.{name}{unit}" for name in ("time", "monotonic", "perf_counter") for unit in ("", "_ns")),
    *(f"time.{name}" for name in ("clock_gettime", "clock_gettime_ns", "localtime", "gmtime")),
    *(f"datetime.datetime.{name}" for name in ("now", "utcnow", "today")),
    "datetime.date.today",
}
STARTS_TASK = {"create_task", "ensure_future", "run_coroutine_threadsafe"}
EVERYTHING = {"Exception", "BaseException"}
# First words of docstrings that are neither a verb nor a noun phrase.
NO_OPENINGS = frozenset(
    [
        "who",
        "what",
        "which",
        "whoever",
        "whatever",
        "whom",
        "whose",
        "how",
        "whether",
        "where",
        "when",
        "why",
        "as",
        "of",
        "in",
        "at",
        "from",
        "for",
        "to",
        "with",
        "without",
        "by",
        "see",
        "if",
        "and",
        "so",
        "these",
        "those",
        "this",
        "that",
        "its",
        "it",
        "they",
        "there",
        "on",
        "behind",
        "only",
        "not",
        "no",
        "nothing",
        "nobody",
        "also",
        "but",
    ]
)
LATER = ("FIX" + "ME", "TO" + "DO", "XX" + "X")


def house_offences(found: Collection[Source], house: Mapping[str, Collection[str]] = HOUSE) -> list[str]:
    offences = []
    for source in found:
        if source.module == "serving":
            continue
        rule = max((name for name in house if within(source.module, [name])), key=len, default=None)
        if rule is None:
            offences.append(f"{source.path}: {source.module} has no rule; add it to HOUSE in tests/tidy/tables.py")
            continue
        for node, name in source.imports:
            if within(name, PACKAGES) and not within(name, (*house[rule], rule)):
                allowed = ", ".join(house[rule]) or "nothing of this repository"
                offences.append(f"{source.at(node)}: {rule} may not import {name}; it may import {allowed}")
    return offences


def apart_offences(found: Collection[Source], apart: Mapping[str, Collection[str]] = APART) -> list[str]:
    offences = []
    for source in found:
        room = max((name for name in apart if within(source.module, [name])), key=len, default=None)
        if room is not None:
            offences += [
                f"{source.at(node)}: {room} may not import {name}: move shared code to a module that both may import"
                for node, name in source.imports
                if within(name, apart[room])
            ]
    return offences


def third_party_offences(found: Collection[Source], allowed: Mapping[str, Collection[str]] = THIRD_PARTY) -> list[str]:
    offences = []
    for source in found:
        for node, name in source.imports:
            top = name.partition(".")[0]
            if top in PACKAGES or top in sys.stdlib_module_names:
                continue
            if within(source.module, STDLIB_ONLY):
                offences.append(f"{source.at(node)}: {name}: the core is pure; only the standard library")
            elif not within(source.module, allowed.get(top, ())):
                places = ", ".join(allowed.get(top, ())) or "no place of THIRD_PARTY in tests/tidy/tables.py"
                offences.append(f"{source.at(node)}: {name} may only be imported in {places}")
    return offences


def undeclared_offences(
    found: Collection[Source],
    distributions: Mapping[str, str] = DISTRIBUTIONS,
    optional: Collection[str] = OPTIONAL.keys(),
) -> list[str]:
    """Finds imports whose distribution pyproject.toml does not name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = chain(project["dependencies"], *project["optional-dependencies"].values())
    declared = {_normal(re.split(r"[^\w.-]", requirement)[0]) for requirement in requirements}
    return [
        f"{source.at(node)}: {top} is imported and not in pyproject.toml"
        for source in found
        for node, name in source.imports
        if (top := name.partition(".")[0]) not in sys.stdlib_module_names
        and top not in PACKAGES
        and top not in optional
        and _normal(distributions.get(top, top)) not in declared
    ]


def core_offences(found: Collection[Source], owners: Collection[str] = CLOCK_OWNERS.keys()) -> list[str]:
    return [
        f"{source.at(node)}: {name}: the core does not use {name}; take what you need as an argument (time as now_ns)"
        for source in found
        if within(source.module, STDLIB_ONLY) and source.module not in owners
        for node, name in source.imports
        if name.partition(".")[0] in OUTSIDE_CORE
    ]


def clock_offences(found: Collection[Source], owners: Collection[str] = CLOCK_OWNERS.keys()) -> list[str]:
    """Finds uses of a clock. The event loop's own clock is allowed, since its timers use it."""
    return [
        f"{source.at(node)}: {name}: take a serving.core.clock.Clock, or now_ns as a value"
        for source in found
        if not within(source.module, owners)
        for node, name in source.uses
        if name in CLOCKS
    ]


def task_offences(found: Collection[Source], owners: Collection[str] = TASK_OWNERS.keys()) -> list[str]:
    """Finds tasks started outside a TaskGroup, by asyncio, by a loop of any name, or by a method passed on."""
    return [
        f"{source.at(node)}: {name}: use a TaskGroup; otherwise handle its end and failure, and add it to TASK_OWNERS"
        for source in found
        if not within(source.module, owners)
        for node, name in _task_starts(source)
    ]


def silence_offences(found: Collection[Source]) -> list[str]:
    return [
        f"{source.at(node)}: catches every exception silently: name the exception, or log it"
        for source in found
        for node in ast.walk(source.tree)
        if (isinstance(node, ast.ExceptHandler) and _catches_all(node.type) and _does_nothing(node.body))
        or (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).rpartition(".")[2] == "suppress"
            and any(map(_catches_all, node.args))
        )
    ]


def print_offences(found: Collection[Source], printers: Collection[str] = PRINTERS.keys()) -> list[str]:
    return [
        f"{source.at(node)}: {name}: log it, or return the text and let the command print it"
        for source in found
        if not within(source.module, printers)
        for node, name in source.uses
        if name in ("print", "builtins.print", "sys.stdout", "sys.stderr")
    ]


def proxy_offences(found: Collection[Source]) -> list[str]:
    return [
        f"{source.at(node)}: urlopen uses http_proxy: call serving.direct instead"
        for source in found
        for node, name in source.uses
        if name.rpartition(".")[2] == "urlopen"
    ]


def docstring_offences(found: Collection[Source]) -> list[str]:
    return [
        f"{source.path.relative_to(ROOT)}: begin with a docstring: what the file owns, and what it does not know"
        for source in found
        if source.tree.body and not ast.get_docstring(source.tree)
    ]


def opening_offences(found: Collection[Source]) -> list[str]:
    offences = []
    for source in found:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
                words = (ast.get_docstring(node) or "").lower().replace(",", " ").replace(":", " ").split()
                if words and words[0] in NO_OPENINGS:
                    offences.append(f"{source.at(node)}: begin with a verb or a noun phrase, not {words[0]!r}")
    return offences


def later_offences(found: Collection[Source]) -> list[str]:
    return [
        f"{source.path.relative_to(ROOT)}:{number}: {word}: do it now, or write it where work is planned"
        for source in found
        for number, line in enumerate(source.text.splitlines(), 1)
        for word in LATER
        if word in line
    ]


def benchmark_offences(found: Collection[Source]) -> list[str]:
    """Finds imports of benchmarks: they may change at any time, so that tests use serving.testing instead."""
    return [
        f"{source.at(node)}: {name}: code that several tests need belongs in serving.testing"
        for source in found
        if not within(source.module, ("benchmarks", "tests.benchmarks"))
        for node, name in source.imports
        if within(name, ("benchmarks",))
    ]


@cache
def _task_starts(source: Source) -> Sequence[tuple[ast.AST, str]]:
    """Returns the places that start a task, except calls on a name that is a TaskGroup in the enclosing function."""
    of_groups = {
        id(node)
        for function in ast.walk(source.tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in _of_groups(function)
    }
    starts = [
        (node, name)
        for node, name in source.uses
        if id(node) not in of_groups and name.rpartition(".")[2] in STARTS_TASK
    ]
    for node in ast.walk(source.tree):
        match node:
            case ast.Call(func=ast.Name(id="Task") | ast.Attribute(attr="Task", value=ast.Name(id="asyncio"))):
                starts.append((node, "asyncio.Task"))
            case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(str(name)), *_]) if name in STARTS_TASK:
                starts.append((node, f"getattr {name}"))
    return starts


def _of_groups(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.AST]:
    groups = {
        argument.arg
        for argument in (*function.args.args, *function.args.kwonlyargs)
        if argument.annotation is not None and _is_group(argument.annotation)
    }
    for node in ast.walk(function):
        match node:
            case ast.withitem(context_expr=ast.Call(func=opened), optional_vars=ast.Name(id=name)):
                if _is_group(opened):
                    groups.add(name)
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in groups:
            yield node


def _is_group(node: ast.expr) -> bool:
    return ast.unparse(node).rpartition(".")[2] == "TaskGroup"


def _catches_all(caught: ast.expr | None) -> bool:
    kinds = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(kind is None or ast.unparse(kind).rpartition(".")[2] in EVERYTHING for kind in kinds)


def _does_nothing(body: list[ast.stmt]) -> bool:
    match body:
        case [ast.Pass() | ast.Continue() | ast.Break() | ast.Expr(ast.Constant())]:
            return True
        case _:
            return False


def _normal(name: str) -> str:
    return name.lower().replace("_", "-")
