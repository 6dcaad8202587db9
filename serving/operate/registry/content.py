"""The commands `headway registry` about the content of versions: push, import, export, verify, gc."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from serving.operate.printing import mistake, say
from serving.operate.registry import actions, mlflow, show
from serving.operate.registry.actions import Made
from serving.operate.registry.options import (
    AsJson,
    By,
    Config,
    Place,
    Ref,
    Why,
    author,
    failures_printed,
    found,
    named,
    now_s,
    place_of,
    print_json,
)
from serving.registry.changes import AlreadyRegistered, Author

app = typer.Typer()

ForModel = Annotated[str, typer.Option("--model", metavar="MODEL", help="The model that it is a version of.")]
Metrics = Annotated[
    Path | None, typer.Option("--metrics", metavar="FILE", help="A JSON file with the metrics of its evaluation.")
]
Data = Annotated[str, typer.Option("--data", help="The data that it was trained on: a snapshot's name, say.")]
Code = Annotated[str, typer.Option("--code", help="The revision of the code that trained it.")]
Licence = Annotated[str, typer.Option("--licence", help="Its licence.")]
Parent = Annotated[str | None, typer.Option("--parent", metavar="VERSION", help="The version that it was made from.")]
Environment = Annotated[
    Path | None,
    typer.Option("--environment", metavar="FILE", help="The packages it needs, as `pip freeze` lists them."),
]


@app.command("push")
def push_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder: model.yaml and the files that it names.")],
    model: ForModel,
    metrics: Metrics = None,
    data: Data = "",
    code: Code = "",
    licence: Licence = "",
    parent: Parent = None,
    environment: Environment = None,
    why: Why = "",
    by: By = None,
    config: Config = None,
    registry: Place = None,
    as_json: AsJson = False,
) -> None:
    """Make a version of the files in a folder. The same content again is the version that it was."""
    place = place_of(config, registry)
    with failures_printed():
        facts = _facts(place, model, metrics, environment, parent, data=data, code=code, licence=licence)
        _push(place, model, actions.prepared(folder, facts), author(by, why), as_json)


@app.command("import")
def import_command(
    source: Annotated[str, typer.Argument(metavar="mlflow:DIR", help="A folder that MLflow has written.")],
    model: ForModel,
    settings: Annotated[
        Path | None, typer.Option("--settings", metavar="FILE", help="A model.yaml that says how to serve it.")
    ] = None,
    metrics: Metrics = None,
    why: Why = "",
    by: By = None,
    config: Config = None,
    registry: Place = None,
    as_json: AsJson = False,
) -> None:
    """Make a version of a model that MLflow has saved. Reads its files only; refuses flavours that are pickles."""
    kind, _, folder = source.partition(":")
    if kind != "mlflow" or not folder:
        mistake("SOURCE: write mlflow:DIR, the folder with the file MLmodel")
    place = place_of(config, registry)
    with failures_printed():
        facts = {"metrics": _json_file(metrics)} if metrics else {}
        _push(place, model, mlflow.imported(Path(folder), facts, settings), author(by, why), as_json)


@app.command("export")
def export_command(
    reference: Ref,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write; it must not exist.")],
    config: Config = None,
    registry: Place = None,
) -> None:
    """Write a version as a folder of MLflow's: MLmodel, and the files with their model.yaml below `model`."""
    place, (model, version) = found(config, registry, reference)
    with failures_printed():
        manifest = mlflow.export(place, model.name, version, folder)
    say(f"{model.name}@v{version.number} is in {folder}: {len(manifest.files)} files, {manifest.size:,} bytes")


@app.command("verify")
def verify_command(
    reference: Annotated[str, typer.Argument(metavar="MODEL[@VERSION]", help="A version; without one all of them.")],
    config: Config = None,
    registry: Place = None,
) -> None:
    """Read every byte of a version, or of all of a model, and compare it with its hash."""
    place, name, text = named(config, registry, reference, whole_model=True)
    with failures_printed():
        model = actions.read_model(place, name)
        wanted = [actions.version_of(model, text)] if text else list(model.state.versions.values())
    failed = False
    for version in wanted:
        if version.archived and not text:
            say(f"v{version.number}: archived")
            continue
        try:
            with failures_printed():
                manifest = actions.verify(place, name, version)
            say(f"v{version.number}: good, {len(manifest.files)} files, {manifest.size:,} bytes")
        except typer.Exit:
            say(f"v{version.number}: bad")
            failed = True
    if failed:
        raise typer.Exit(1)


@app.command("gc")
def gc_command(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="Only this model.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
    config: Config = None,
    registry: Place = None,
    as_json: AsJson = False,
) -> None:
    """Remove the files of archived versions, and what is left of pushes that never finished and are a day old."""
    place = place_of(config, registry)
    with failures_printed():
        names = [model] if model else [one.name for one in actions.models_in(place)]
        paths = actions.cleaned(place, names, now_s(), really=not dry_run)
    if as_json:
        print_json({"removed" if not dry_run else "would_remove": paths})
        return
    for path in paths:
        typer.echo(path)
    say(f"{len(paths)} objects {'would be' if dry_run else 'are'} removed")


def _push(place: str, model: str, made: Made, author: Author, as_json: bool) -> None:
    digest, is_new = made.manifest.digest, True
    try:
        version = actions.pushed(place, model, made, author, lambda name: None if as_json else say(f"  {name}"))
    except AlreadyRegistered as error:
        version, is_new = error.version, False
    if as_json:
        print_json({"model": model, "version": version.number, "digest": digest, "new": is_new})
        return
    typer.echo(f"{model}@v{version.number}")
    if is_new:
        say(f"{digest[: show.SHORT]}, {len(made.files)} files, {made.manifest.size:,} bytes")
        say(f"next: `headway registry approve {model}@v{version.number}`, by somebody else")
    else:
        say(f"this content is v{version.number} already, registered {version.at} by {show.person(version.author)}")


def _facts(
    place: str, model: str, metrics: Path | None, environment: Path | None, parent: str | None, **texts: str
) -> dict[str, Any]:
    """Returns the facts of a manifest that the options name."""
    facts: dict[str, Any] = dict(texts)
    if metrics:
        facts["metrics"] = _json_file(metrics)
    if environment:
        lines = (line.split("#")[0].strip().partition("==") for line in _text_file(environment).splitlines())
        facts["environment"] = {name: version for name, _, version in lines if name}
    if parent:
        facts["parent"] = actions.version_of(actions.read_model(place, model), parent).digest
    return facts


def _text_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        mistake(f"{path}: {error}")


def _json_file(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_text_file(path))
    except (ValueError, RecursionError) as error:
        mistake(f"{path}: {error}")
    if not isinstance(value, dict):
        mistake(f"{path}: expected an object of metrics by name")
    return value
