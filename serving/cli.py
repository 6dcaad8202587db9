"""The command `headway`. Exit codes: 0 success, 1 failure, 2 a mistake in the command line or the settings.

Each subcommand imports Ray and torch itself if it needs them: they take long to import, and mistakes are printed first.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serving import explain as explaining
from serving.config import Settings, SettingsError, load_settings
from serving.operate import cache, features, features_offline, keys, release, route
from serving.operate.registry import commands as registry

app = typer.Typer(
    name="headway",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Serves PyTorch models with batches that tune themselves. Begin with demo.yaml.",
)
app.add_typer(keys.app)
app.add_typer(cache.app)
app.add_typer(route.app)
app.add_typer(release.app)
app.add_typer(registry.app)
features.app.add_typer(features_offline.app)
app.add_typer(features.app)
out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)

Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="The settings, a YAML file such as demo.yaml.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs instead of text for people.")]


class Target(StrEnum):
    """The manifests that `headway render` can print."""

    KUBERAY = "kuberay"
    NETWORK_POLICY = "network-policy"
    CLUSTER = "cluster"


def _print_version(wanted: bool) -> None:
    if wanted:
        from serving.operate.doctor import installed

        typer.echo(f"headway {installed('headway') or '(not installed as a package)'}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the release and exit.")
    ] = False,
) -> None:
    """Holds the options that belong to no single subcommand."""


@app.command()
def serve(config: Config) -> None:
    """Serve the models of CONFIG until Ctrl-C."""
    settings = _load(config)
    from serving.operate.launch import StartFailed
    from serving.operate.launch import serve as serve_until_stopped

    try:
        serve_until_stopped(settings, config, lambda text: out.print(text, markup=False, highlight=False))
    except StartFailed as failure:
        err.print(f"[red]{escape(str(failure))}[/]", highlight=False)
        raise typer.Exit(1) from None


@app.command()
def check_config(
    config: Config,
    import_factories: Annotated[
        bool, typer.Option("--import", help="Also import each model's factory, as `headway serve` does.")
    ] = False,
) -> None:
    """Check CONFIG and print every mistake with its line."""
    settings = _load(config)
    if import_factories:
        with _mistakes_printed():
            _check_factories(settings)
    names = ", ".join(settings.applications())
    out.print(f"{config}: good; {len(settings.models)} model(s): {names}", markup=False, highlight=False)


@app.command()
def explain(config: Config, as_json: AsJson = False) -> None:
    """Show every setting, where it came from, and what follows from it."""
    settings = _load(config)
    from serving.cluster.environment import ray_environment
    from serving.cluster.limits import derived

    values = explaining.values(settings)
    specs = zip(settings.applications(), settings.model_specs(), strict=True)
    limits = {application: derived(spec) for application, spec in specs}
    environment = ray_environment(settings)
    if as_json:
        _print_json(
            {
                "settings": [value._asdict() for value in values],
                "derived": limits,
                "environment": environment,
                "learned": explaining.LEARNED,
            }
        )
        return
    _print_table("Settings", ("setting", "value", "from"), values)
    _print_table(
        "What follows",
        ("model", "limit", "value"),
        [(name, limit, value) for name, of_model in limits.items() for limit, value in of_model.items()],
    )
    _print_table("Environment of Ray, on every node", ("variable", "value"), list(environment.items()))
    out.print("\n[bold]Learned while serving, so not set anywhere[/] (see GET /v2/models/<name>/config):")
    for fact in explaining.LEARNED:
        out.print(f"  {fact}")


@app.command()
def settings(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table of docs/configuration.md.")] = False,
) -> None:
    """List every setting with its default and meaning."""
    if markdown:
        typer.echo(explaining.reference_markdown())
    else:
        _print_table("Settings", ("setting", "default", "meaning"), list(explaining.reference()))


@app.command()
def metrics(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables of docs/metrics.md.")] = False,
) -> None:
    """List every metric of GET /metrics with its labels and meaning."""
    from serving.telemetry import metrics as table

    if markdown:
        typer.echo(table.markdown(), nl=False)
    else:
        _print_table("Metrics", ("metric", "kind", "unit", "labels", "meaning"), list(table.rows()))


@app.command()
def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new lines until Ctrl-C.")] = False,
    most: Annotated[
        int, typer.Option("--lines", "-n", min=0, help="The most lines to print of those there are.")
    ] = 100,
    as_json: AsJson = False,
    folder: Annotated[Path | None, typer.Option(help="The folder of Ray Serve's logs, if not Ray's default.")] = None,
) -> None:
    """Print the log of the replicas on this machine, including the sampled requests."""
    from serving.telemetry.log_files import FOLDER, LogFiles

    log_folder = folder or FOLDER
    if not log_folder.is_dir():
        err.print(
            f"no logs in {log_folder}: serve a model on this machine first, or name the folder with --folder",
            style="red",
            markup=False,
        )
        raise typer.Exit(1)
    files = LogFiles(log_folder)
    lines = files.new_lines()[-most:] if most else files.new_lines()[:0]
    while True:
        for line in lines:
            if as_json:
                typer.echo(line.raw)
            else:
                style = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}.get(line.level, "")
                out.print(f"[dim]{line.at}[/] [bold]{escape(line.who)}[/] ", end="", highlight=False)
                out.print(line.text, style=style, markup=False, highlight=False)
        if not follow:
            return
        time.sleep(0.5)
        lines = files.new_lines()


@app.command()
def doctor(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="Also check what these settings need.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check this machine: Python, torch, GPUs, Ray, HAProxy, cores, memory, disk, ports."""
    settings = _load(config) if config else None
    from serving.operate.doctor import Verdict, examine

    checks = []
    for check in examine(settings):
        checks.append(check)
        if not as_json:
            colour = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red"}[check.verdict]
            advice = f"\n{'':22}→ {escape(check.advice)}" if check.advice else ""
            out.print(
                f"[{colour}]{check.verdict:5}[/] {check.name:15} {escape(check.finding)}{advice}", highlight=False
            )
    if as_json:
        fields = ("name", "verdict", "finding", "advice")
        _print_json([{field: getattr(check, field) for field in fields} for check in checks])
    if any(check.verdict is Verdict.FAIL for check in checks):
        raise typer.Exit(1)


@app.command()
def render(
    config: Config,
    to: Annotated[
        Target,
        typer.Option(
            "--to",
            help="kuberay: a RayService. network-policy: a policy that closes its pods' other ports. cluster: a file "
            "for `ray up` on AWS.",
        ),
    ],
) -> None:
    """Print the manifest that serves CONFIG on a cluster."""
    settings = _load(config)
    from serving.operate.render import advice
    from serving.operate.render import kuberay as manifests
    from serving.operate.render import ray_up as launcher_file

    renders = {
        Target.KUBERAY: manifests.kuberay,
        Target.NETWORK_POLICY: manifests.network_policy,
        Target.CLUSTER: launcher_file.cluster,
    }
    for lacking in advice(settings):
        err.print(f"WARNING: {lacking}", style="yellow", markup=False, highlight=False)
    typer.echo(renders[to](settings), nl=False)


@app.command()
def top(
    url: Annotated[str, typer.Argument(help="The server, on this machine.")] = "http://127.0.0.1:8000",
    every_s: Annotated[float, typer.Option("--every", min=0.2, help="Seconds between two looks.")] = 2.0,
    looks: Annotated[
        int | None, typer.Option("--looks", min=1, help="Stop after this many looks. Without it: until Ctrl-C.")
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option("--key-file", help="A file with a key of scope `admin`, for a server that asks for keys."),
    ] = None,
) -> None:
    """Watch the models: replicas, queues, batches, outcomes and latency of requests."""
    from rich.live import Live

    from serving import top as looking
    from serving.operate.processes import StopSignal

    stop = StopSignal()
    try:
        key = key_file.read_text().strip() if key_file is not None else ""
        before = looking.look(url, key)
        with Live(console=out, auto_refresh=False) as live:
            while looks != 0 and not stop.wait(every_s):
                after = looking.look(url, key)
                live.update(looking.table(looking.lines(before, after, every_s)), refresh=True)
                before, looks = after, looks and looks - 1
    except OSError as error:
        err.print(f"[red]{escape(f'{url}: {error}')}[/]", highlight=False)
        raise typer.Exit(1) from None


@app.command()
def drain_on_notice() -> None:
    """Wait until the cloud takes back this spot machine, then drain it. ray_cluster.yaml runs this on its workers."""
    from serving.operate.preemption import watch
    from serving.operate.processes import StopSignal

    watch(lambda text: typer.echo(text), StopSignal())


def _load(config: Path) -> Settings:
    """Returns the settings, with what the registry tells of their models."""
    with _mistakes_printed():
        settings = load_settings(config)
        if all(model.is_resolved for model in settings.models):
            return settings
        from serving.cluster.registered import resolved

        return resolved(settings, lambda text: err.print(text, style="dim", markup=False, highlight=False))


@contextmanager
def _mistakes_printed() -> Iterator[None]:
    """Prints the mistakes of a `SettingsError` and exits with code 2."""
    try:
        yield
    except SettingsError as error:
        for mistake in error.mistakes:
            err.print(mistake, style="red", markup=False, highlight=False)
        raise typer.Exit(2) from None


def _check_factories(settings: Settings) -> None:
    """Raises `SettingsError` naming every factory that cannot be imported."""
    from models.loading import find_factory

    source = settings.source
    assert source is not None
    mistakes = []
    for index, model in enumerate(settings.models):
        key = ("models", index, "factory")
        if model.reference is not None:
            continue  # its code is in the registry
        try:
            find_factory(model.factory, settings.folder)
        except Exception as error:  # the module is the user's code: importing it may raise anything
            mistakes.append(f"{source.locate(key)}: {_described(error)}")
    if mistakes:
        raise SettingsError(mistakes)


def _described(error: Exception) -> str:
    return str(error) if type(error).__name__ == "ModelNotLoadable" else f"{type(error).__name__}: {error}"


def _print_table(title: str, columns: tuple[str, ...], rows: list[Any]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, header_style="dim", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(_shown(cell)) for cell in row))
    out.print(table)
    out.print()


def _shown(cell: object) -> str:
    return cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False, default=str)


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


main: Callable[[], None] = app

if __name__ == "__main__":
    main()
