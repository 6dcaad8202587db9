"""The commands `headway features` that work on files: materialize raw Parquet, and make training sets.

Results are on standard output; what people should know is on standard error.
"""

import asyncio
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from serving.config import Settings, SettingsError, load_settings
from serving.core.clock import Calendar
from serving.features.offline.errors import OfflineError
from serving.features.rows import EVENT_TS
from serving.features.views import FeatureView
from serving.operate.own_redis import own_redis
from serving.store.base import StoreUnavailable
from serving.store.objects import BadPath, scheme_of
from serving.store.place import NoState, state_place

if TYPE_CHECKING:
    from serving.features.offline.materialize import Done

app = typer.Typer()
out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)
FOLDER = "features"  # of the state
_MEMORY = re.compile(r"[1-9][0-9]{0,5}(MB|GB)")

Config = Annotated[
    Path, typer.Option("--config", metavar="FILE", help="The settings, which declare the views under `features`.")
]
Store = Annotated[
    Path | None,
    typer.Option("--store", metavar="FOLDER", help="The folder of the files instead of `features` in `server.state`."),
]
Tenant = Annotated[str, typer.Option("--tenant", help="The tenant whose features they are.")]
Time = Annotated[str, typer.Option("--time", metavar="COLUMN", help="The column with the time.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs instead of text for people.")]


@app.command()
def history(
    labels: Annotated[
        Path, typer.Argument(metavar="LABELS", exists=True, dir_okay=False, help="Labels: Parquet, with ids and times.")
    ],
    views: Annotated[str, typer.Option("--views", metavar="A,B", help="The feature views, separated by commas.")],
    to: Annotated[Path, typer.Option("--out", metavar="FILE", help="The Parquet file to write.")],
    config: Config,
    tenant: Tenant = "",
    store: Store = None,
    time: Time = EVENT_TS,
    as_of_event_time: Annotated[
        bool,
        typer.Option("--as-of-event-time", help="Take values as known from their event on, whenever they were stored."),
    ] = False,
    reasons: Annotated[
        bool, typer.Option("--reasons", help="Write beside each feature why it has no valid value.")
    ] = False,
    memory: Annotated[
        str, typer.Option("--memory", help="The most that DuckDB holds before it uses the disk.")
    ] = "2GB",
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Of DuckDB; one per core if unset.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write LABELS again, with the features that were known at the time of each label.

    Nothing that was known only later is in it. Labels keep their columns and their order.
    """
    if not _MEMORY.fullmatch(memory):
        _mistake("--memory: write a number with its unit, such as 500MB or 4GB")
    settings = _settings(config)
    chosen = [_view(settings, name) for name in dict.fromkeys(views.split(","))]
    root = _root(settings, store)
    with _failures_printed():
        from serving.features.offline.training import Limits, make_training_set

        made = make_training_set(
            labels,
            chosen,
            to,
            root=root,
            tenant=tenant,
            limits=Limits(memory, threads or os.cpu_count() or 1, to.parent),
            time_column=time,
            by_event_time=as_of_event_time,
            reasons=reasons,
        )
    found = {view: {name: asdict(one) for name, one in features.items()} for view, features in made.found.items()}
    if as_json:
        typer.echo(json.dumps({"out": str(to), "labels": made.labels, "found": found}, indent=2))
        return
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("view", "feature", "valid", "expired", "missing"):
        table.add_column(column, overflow="fold", justify="left" if column in ("view", "feature") else "right")
    for view, features in found.items():
        for name, counts in features.items():
            table.add_row(view, name, *(f"{count:,}" for count in counts.values()))
    out.print(table)
    _say(f"{to}: {made.labels:,} labels")


@app.command()
def materialize(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Raw Parquet: a file, a folder, or a pattern in quotes.")
    ],
    view: Annotated[str, typer.Option("--view", help="The feature view that the rows are for.")],
    config: Config,
    tenant: Tenant = "",
    store: Store = None,
    time: Time = EVENT_TS,
    created: Annotated[
        str,
        typer.Option(
            "--created", metavar="COLUMN", help="The column that says since when a row was known. Unset: from now on."
        ),
    ] = "",
    offline_only: Annotated[
        bool, typer.Option("--offline-only", help="Store the rows in files, and leave the online store as it is.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Store the rows of SOURCE in a feature view, and put the latest value of each entity online.

    The view's transformation makes features of the raw columns. What is stored already is not stored again, so run it
    again after it was ended.
    """
    settings = _settings(config)
    into, root = _view(settings, view), _root(settings, store)
    with _failures_printed():
        from serving.features.offline.materialize import Raw, files_of, stored_batches
        from serving.features.offline.transform import transformation_of

        batches = stored_batches(
            files_of(source),
            into,
            tenant,
            root=root,
            transformation=transformation_of(into, settings.folder),
            raw=Raw(time, created),
            calendar=Calendar(),
        )
        if offline_only:
            done = asyncio.run(_materialized(batches, into, tenant, None))
        else:
            with own_redis(settings, _say) as served:
                done = asyncio.run(_materialized(batches, into, tenant, served))
    if as_json:
        typer.echo(json.dumps(asdict(done)))
    else:
        _say(_told(done))


async def _materialized(batches: Any, view: FeatureView, tenant: str, settings: Settings | None) -> "Done":
    """Materializes the batches. settings: those that name the Redis of the online store; None to leave it alone."""
    from serving.features.offline.materialize import materialize as run
    from serving.operate.online_values import online_values

    def progress(path: Path, done: "Done") -> None:
        if err.is_terminal:
            err.print(f"{path.name}: {_told(done)}", end="\r", markup=False, highlight=False)

    if settings is None:
        return await run(batches, view, tenant, None, progress)
    async with online_values(settings) as online:
        return await run(batches, view, tenant, online, progress)


def _told(done: "Done") -> str:
    return f"{done.rows:,} rows, {done.added:,} of them new; {done.online:,} values put online"


def _settings(config: Path) -> Settings:
    try:
        settings = load_settings(config)
    except SettingsError as error:
        for mistake in error.mistakes:
            err.print(mistake, style="red", markup=False, highlight=False)
        raise typer.Exit(2) from None
    if settings.features is None:
        _mistake(f"{config}: declares no features; see docs/features.md")
    return settings


def _view(settings: Settings, name: str) -> FeatureView:
    views = settings.features.declared().views if settings.features else {}
    if name not in views:
        _mistake(f"there is no feature view {name!r}; known: {', '.join(views)}")
    return views[name]


def _root(settings: Settings, store: Path | None) -> Path:
    """Returns the folder of the offline store. Exits with code 2 if there is none."""
    if store is not None:
        return store.expanduser()
    try:
        scheme, place = scheme_of(state_place(settings.server.state))
    except (BadPath, NoState) as error:
        _mistake(str(error))
    if scheme != "file":
        _mistake(f"server.state is {place}; files of features need a folder, name one with --store")
    return Path(place) / FOLDER


@contextmanager
def _failures_printed() -> Iterator[None]:
    """Prints why a command failed, and exits with code 1."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in ("pyarrow", "duckdb", "redis"):
            raise
        text = f"{error.name} is not installed: pip install 'headway[features]'"
    except OSError as error:
        text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except StoreUnavailable as error:
        text = f"the online store does not answer: {error}; what was stored in files stays, run the command again"
    except OfflineError as error:
        text = str(error)
    else:
        return
    err.print(text, style="red", markup=False, highlight=False)
    raise typer.Exit(1)


def _say(text: str) -> None:
    err.print(text, markup=False, highlight=False)


def _mistake(text: str) -> NoReturn:
    err.print(text, style="red", markup=False, highlight=False)
    raise typer.Exit(2)
