"""The commands `headway features`: push values to a running server, and read them.

Values that are read are on standard output; what people should know is on standard error.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serving.operate.asking import ServerRefused, asked
from serving.operate.feature_files import BadLine, Line, batches, body_of, is_csv, lines_of
from serving.operate.printing import err, fail, say

app = typer.Typer(
    name="features",
    no_args_is_help=True,
    help="Push values of features to a running server and read them; store raw Parquet files; make training sets. The "
    "settings declare the views, under `features`.",
)
out = Console(soft_wrap=True)
PATIENCE_S = 60.0
_ROW = re.compile(r"rows\[(\d+)\](.*)", re.DOTALL)

Url = Annotated[str, typer.Option("--url", help="The server.")]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        metavar="FILE",
        help="A file with an API key, for a server that asks for keys: scope `features:write` to push, `predict` to "
        "read.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs instead of text for people.")]
HERE = "http://127.0.0.1:8000"


@app.command()
def push(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The rows: .jsonl (or .ndjson), or .csv with a header.")],
    view: Annotated[str, typer.Option("--view", help="The feature view that the rows belong to.")],
    url: Url = HERE,
    key_file: KeyFile = None,
) -> None:
    """Push the rows of FILE into a feature view.

    Each row has the column of the entity's id, `event_ts` (2026-11-29T12:00:00Z, or seconds since 1970) and features.

    An empty cell of a CSV leaves its feature as it is.

    A row never replaces one of a later event, so the same file may be pushed again after a failure."""
    rows = written = superseded = 0
    with _failures_printed(url):
        key = _key(key_file)
        lines = _lines(file, _datatypes(url, key, view))
        try:
            for batch in batches(lines):
                told = _sent(file, batch, f"{url}/v2/features/{quote(view, safe='')}", key)
                rows += len(batch)
                written += told["written"]
                superseded += told["superseded"]
                if err.is_terminal:
                    err.print(f"{rows:,} rows", end="\r", markup=False, highlight=False)
        except BaseException:
            say(f"{rows:,} rows were pushed before that")
            raise
    say(f"pushed {rows:,} rows: {written:,} values written, {superseded:,} superseded by later ones")


@app.command()
def get(
    view: Annotated[str, typer.Argument(metavar="VIEW", help="The feature view.")],
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The ids of entities.")],
    feature: Annotated[
        list[str] | None, typer.Option("--feature", help="Only this feature. Repeat it for several.")
    ] = None,
    url: Url = HERE,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Read features of entities as of now, each with the reason for its value and its age."""
    wanted: dict[str, Any] = {"ids": ids, "reasons": True} | ({"features": feature} if feature else {})
    with _failures_printed(url):
        path = f"{url}/v2/features/{quote(view, safe='')}/get"
        told = _asked(path, _key(key_file), json.dumps(wanted).encode())
    if as_json:
        typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("id", "feature", "value", "reason", "age"):
        table.add_column(column, overflow="fold")
    for index, id in enumerate(told["ids"]):
        for name, values in told["features"].items():
            age_s = told["ages_s"][name][index]
            cells = (id, name, json.dumps(values[index], ensure_ascii=False), told["reasons"][name][index])
            table.add_row(*map(escape, cells), "" if age_s is None else f"{age_s:,.1f} s")
    out.print(table)


def _lines(file: Path, datatypes: dict[str, str]) -> Iterator[Line]:
    """Yields the rows of the file. Raises OSError, UnicodeDecodeError, and ValueError with the file's name."""
    table = is_csv(file)
    with file.open(encoding="utf-8-sig", newline="" if table else None) as text:
        try:
            yield from lines_of(text, is_csv=table, datatypes=datatypes)
        except BadLine as error:
            raise ValueError(f"{file}:{error}") from None


def _datatypes(url: str, key: str, view: str) -> dict[str, str]:
    views = {told["name"]: told for told in _asked(f"{url}/v2/features", key)["views"]}
    if view not in views:
        raise ServerRefused(f"there is no feature view {view!r}; known: {', '.join(views)}")
    return {feature["name"]: feature["datatype"] for feature in views[view]["features"]}


def _sent(file: Path, batch: list[Line], url: str, key: str) -> Any:
    """Returns the server's answer to a batch. Raises ServerRefused, with the file's line for a mistake in a row."""
    try:
        return _asked(url, key, body_of(batch))
    except ServerRefused as error:
        if match := _ROW.match(str(error)):
            raise ServerRefused(f"{file}:{batch[int(match[1])].number}: {match[2].lstrip('.: ')}") from None
        raise


def _asked(url: str, key: str, body: bytes | None = None) -> Any:
    return asked(url, key, body, patience_s=PATIENCE_S)


def _key(file: Path | None) -> str:
    return "" if file is None else file.read_text().strip()


@contextmanager
def _failures_printed(url: str) -> Iterator[None]:
    """Prints why a command failed, and exits with code 1."""
    try:
        yield
    except OSError as error:
        text = f"{error.filename}: {error.strerror}" if error.filename else f"{url}: {error}"
    except (ServerRefused, ValueError) as error:
        text = str(error)
    else:
        return
    fail(text)
