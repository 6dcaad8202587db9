"""The commands `headway features` on files: materialize raw Parquet, make training sets, check what was served.

Results are on standard output; what people should know is on standard error.
"""

import asyncio
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serving.config import Settings
from serving.core.clock import Calendar
from serving.features.rows import EVENT_TS
from serving.features.views import FeatureView
from serving.operate.offline_command import (
    failures_printed,
    memory_of,
    print_table,
    root_of,
    settings_of,
    view_of,
)
from serving.operate.own_redis import own_redis
from serving.operate.printing import err, mistake, say

if TYPE_CHECKING:
    from serving.features.offline.materialize import Done
    from serving.features.offline.served import Difference, Served

app = typer.Typer()

Config = Annotated[
    Path, typer.Option("--config", metavar="FILE", help="The settings, which declare the views under `features`.")
]
Store = Annotated[
    str | None,
    typer.Option("--store", metavar="PLACE", help="A folder or s3:// URL of the files, in place of the settings'."),
]
Tenant = Annotated[str, typer.Option("--tenant", help="The tenant whose features they are.")]
Time = Annotated[str, typer.Option("--time", metavar="COLUMN", help="The column with the time.")]
Memory = Annotated[str, typer.Option("--memory", help="What DuckDB holds before it uses the disk.")]
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
    if not to.parent.is_dir():
        mistake(f"--out: there is no folder {to.parent}")
    settings = settings_of(config)
    chosen = [view_of(settings, name) for name in dict.fromkeys(views.split(","))]
    root = root_of(settings, store)
    with failures_printed():
        from serving.features.offline.training import Limits, make_training_set

        made = make_training_set(
            labels,
            chosen,
            to,
            store=root.drained(),
            tenant=tenant,
            limits=Limits(memory_of(memory), threads or os.cpu_count() or 1, to.parent),
            time_column=time,
            by_event_time=as_of_event_time,
            reasons=reasons,
        )
    found = {view: {name: asdict(one) for name, one in features.items()} for view, features in made.found.items()}
    if as_json:
        typer.echo(json.dumps({"out": str(to), "labels": made.labels, "found": found}, indent=2))
        return
    print_table(
        {"view": view, "feature": name} | {reason: f"{count:,}" for reason, count in counts.items()}
        for view, features in found.items()
        for name, counts in features.items()
    )
    say(f"{to}: {made.labels:,} labels")


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
    settings = settings_of(config)
    into, root = view_of(settings, view), root_of(settings, store)
    with failures_printed():
        from serving.features.offline.materialize import Raw, files_of, stored_batches
        from serving.features.offline.transform import transformation_of

        batches = stored_batches(
            files_of(source),
            into,
            tenant,
            store=root.opened(),
            transformation=transformation_of(into, settings.folder),
            raw=Raw(time, created),
            calendar=Calendar(),
        )
        if offline_only:
            done = asyncio.run(_materialized(batches, into, tenant, None))
        else:
            with own_redis(settings, say) as served:
                done = asyncio.run(_materialized(batches, into, tenant, served))
    if as_json:
        typer.echo(json.dumps(asdict(done)))
    else:
        say(_told(done))


@app.command()
def compact(
    config: Config,
    views: Annotated[str, typer.Option("--views", metavar="A,B", help="The feature views; all if unset.")] = "",
    tenant: Tenant = "",
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Merge the small files of feature views: every minute with pushes adds one for each day of events.

    No answer changes. A command that reads the files at the same time may fail; run that again.
    """
    settings = settings_of(config)
    declared = settings.features.declared().views if settings.features else {}
    chosen = [view_of(settings, name) for name in dict.fromkeys(views.split(","))] if views else list(declared.values())
    root = root_of(settings, store)
    with failures_printed():
        from serving.features.offline.compact import compact as compacted

        opened = root.opened()
        done = {view.name: compacted(opened, tenant, view.name)._asdict() for view in chosen}
    if as_json:
        typer.echo(json.dumps(done))
    else:
        print_table({"view": name} | counts for name, counts in done.items())


@app.command()
def check(
    logs: Annotated[
        list[Path],
        typer.Argument(metavar="LOG...", exists=True, dir_okay=False, help="Logs of served values, as JSON lines."),
    ],
    config: Config,
    store: Store = None,
    memory: Memory = "2GB",
    as_json: AsJson = False,
) -> None:
    """Compare what was served with what the history says of the same times. Exits with code 1 if anything differs."""
    settings = settings_of(config)
    root = root_of(settings, store)
    declared = settings.features.declared().views if settings.features else {}
    with failures_printed(), TemporaryDirectory() as spill:
        from serving.features.offline.replay import replay
        from serving.features.offline.training import Limits

        files = root.drained()
        answers = [served for log in logs for served in _served(log)]
        found = list(replay(answers, declared, files, Limits(memory_of(memory), os.cpu_count() or 1, Path(spill))))
    foreign = sum(served.view not in declared for served in answers)
    if as_json:
        told = {"answers": len(answers), "not_declared": foreign, "differences": [_facts(one) for one in found]}
        typer.echo(json.dumps(told, indent=2))
    else:
        print_table(_facts(one) for one in found)
        passed_over = f"{foreign:,} of them of views that are not declared"
        say(f"{len(answers):,} answers, {passed_over}; {len(found):,} values differ")
    if found:
        raise typer.Exit(1)


def _served(log: Path) -> "Iterator[Served]":
    """Yields the answers in a log. Raises BadLine, with the name of the file."""
    from serving.features.offline.served import BadLine, served_in

    with log.open(encoding="utf-8") as lines:
        try:
            yield from served_in(lines)
        except BadLine as error:
            raise BadLine(f"{log}:{error}") from None


def _facts(difference: "Difference") -> dict[str, Any]:
    return {name.removesuffix("_ms"): value for name, value in asdict(difference).items()}


async def _materialized(batches: Any, view: FeatureView, tenant: str, settings: Settings | None) -> "Done":
    """Materializes the batches. settings: those that name the Redis of the online store; None to leave it alone."""
    from serving.features.offline.materialize import materialize as run
    from serving.operate.online_values import online_values

    def progress(path: Path, done: "Done") -> None:
        if err.is_terminal:
            err.print(f"{path.name}: {_told(done)}", end="\r", markup=False, highlight=False)

    if settings is None:
        return await run(batches, view, tenant, None, Calendar(), progress)
    async with online_values(settings) as online:
        return await run(batches, view, tenant, online, Calendar(), progress)


def _told(done: "Done") -> str:
    return f"{done.rows:,} rows, {done.added:,} of them new; {done.online:,} values put online"
