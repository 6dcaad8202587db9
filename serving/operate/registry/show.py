"""Tells models, versions and differences: as plain data for programs, and as tables for people."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from serving.operate.registry.actions import Model
from serving.registry.manifest import Manifest
from serving.registry.sentences import sentence
from serving.registry.state import Version
from serving.traffic.routes import percent

Rows = list[tuple[str, str, str]]
SHORT = 12  # characters of a hash that people are shown


def role(model: Model, version: Version) -> str:
    """Returns what a version does at present: `stable`, `candidate 5 %`, `archived`, or "" for nothing."""
    route = model.state.route
    if route is not None and version.number == route.stable:
        return "stable"
    if route is not None and version.number == route.candidate:
        return f"candidate {percent(route.share)}"
    return "archived" if version.archived else ""


def model_facts(model: Model) -> dict[str, Any]:
    route = model.state.route
    return {
        "model": model.name,
        "versions": [version_facts(model, version) for version in model.state.versions.values()],
        "route": None if route is None else route.as_mapping(),
    }


def version_facts(model: Model, version: Version) -> dict[str, Any]:
    return {
        "version": version.number,
        "digest": version.digest,
        "by": version.author,
        "at": version.at,
        "why": version.why,
        "approvals": [approval._asdict() for approval in version.approvals],
        "archived": version.archived,
        "released": version.released,
        "role": role(model, version),
    }


def manifest_facts(manifest: Manifest) -> dict[str, Any]:
    return {
        "model": dict(manifest.model),
        "files": {name: {"size": file.size, "sha256": file.sha256} for name, file in manifest.files.items()},
        "metrics": dict(manifest.metrics),
        "data": manifest.data,
        "code": manifest.code,
        "licence": manifest.licence,
        "parent": manifest.parent,
        "environment": dict(manifest.environment),
        "source": dict(manifest.source),
    }


def models_table(models: list[Model]) -> Table:
    table = _table("model", "versions", "stable", "candidate", "newest")
    for model in models:
        route, versions = model.state.route, model.state.versions
        stable = f"v{route.stable}" if route else "-"
        candidate = f"v{route.candidate} {percent(route.share)}" if route and route.candidate else "-"
        newest = next(reversed(list(versions)), None)
        _add(table, model.name, str(len(versions)), stable, candidate, f"v{newest}" if newest else "-")
    return table


def versions_table(model: Model) -> Table:
    table = _table("version", "hash", "registered", "by", "approved by", "", "why")
    for version in reversed(list(model.state.versions.values())):
        approvers = ", ".join(person(approval.by) for approval in version.approvals) or "-"
        what = role(model, version)
        _add(
            table,
            f"v{version.number}",
            version.digest[:SHORT],
            version.at,
            person(version.author),
            approvers,
            what,
            version.why,
            style="bold green" if what == "stable" else "dim" if what == "archived" else "",
        )
    return table


def history_table(model: Model) -> Table:
    table = _table("when", "who", "what", "why")
    for record in model.records:
        _add(table, record.at, person(record.by), sentence(record), record.why)
    return table


def facts_table(rows: Iterator[tuple[str, str]]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        if value:
            table.add_row(escape(name), escape(value))
    return table


def version_rows(model: Model, version: Version, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yields the facts of a version, each with its name."""
    yield "version", f"{model.name}@v{version.number} {role(model, version)}".rstrip()
    yield "hash", version.digest
    yield "registered", f"{version.at} by {person(version.author)}"
    yield "why", version.why
    yield "approved by", ", ".join(f"{person(one.by)} ({one.at})" for one in version.approvals)
    for key in ("factory", "description"):
        yield key, str(manifest.model.get(key, ""))
    for key in ("inputs", "outputs", "state"):
        yield key, ", ".join(_tensor(one) for one in manifest.model.get(key, ()))
    yield "options", _flat(manifest.model.get("options", {}))
    yield "metrics", _flat(manifest.metrics)
    for key in ("data", "code", "licence"):
        yield key, getattr(manifest, key)
    yield "parent", manifest.parent[:SHORT]
    yield "source", _flat(manifest.source)
    for name, file in manifest.files.items():
        yield "file", f"{name}  {file.size:,} bytes  {file.sha256[:SHORT]}"


def differences(old: Manifest, new: Manifest) -> Rows:
    """Returns what differs between two contents: (fact, before, after), "" where there is none."""
    before, after = dict(_facts(old)), dict(_facts(new))
    names = [*before, *(name for name in after if name not in before)]
    rows = [(name, before.get(name, ""), after.get(name, "")) for name in names]
    return [row for row in rows if row[1] != row[2]]


def differences_table(rows: Rows, old: str, new: str) -> Table:
    table = _table("", old, new, "change")
    for name, before, after in rows:
        _add(table, name, before or "-", after or "-", _change(before, after))
    return table


def person(by: str) -> str:
    """Returns a name as people are shown it: users of machines without their kind."""
    return by.removeprefix("user:")


def _facts(manifest: Manifest) -> Iterator[tuple[str, str]]:
    for name, metric in _leaves(manifest.metrics):
        yield f"metrics.{name}", metric
    for key in ("inputs", "outputs", "state"):
        for one in manifest.model.get(key, ()):
            yield f"{key}.{one.get('name')}", _tensor(one)
    for key, value in manifest.model.items():
        if key not in ("inputs", "outputs", "state"):
            yield from ((f"{key}.{name}" if name else key, text) for name, text in _leaves(value))
    for key in ("code", "data", "licence", "parent"):
        yield key, getattr(manifest, key)
    for package, version in manifest.environment.items():
        yield f"environment.{package}", version
    for name, file in manifest.files.items():
        yield f"files.{name}", f"{file.size:,} bytes {file.sha256[:SHORT]}"


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, f"{value:g}" if isinstance(value, float) else str(value)


def _flat(value: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {text}" for name, text in _leaves(value))


def _tensor(tensor: Mapping[str, Any]) -> str:
    return f"{tensor.get('name')} {tensor.get('datatype')} {tensor.get('shape')}"


def _change(before: str, after: str) -> str:
    """Returns how much a number changed, "" for what is no number."""
    try:
        return f"{float(after) - float(before):+g}"
    except ValueError:
        return ""


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _add(table: Table, *cells: str, style: str = "") -> None:
    table.add_row(*map(escape, cells), style=style)
