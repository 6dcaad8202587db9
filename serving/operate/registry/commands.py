"""The commands `headway registry`. Exit codes: 0 done, 1 not done, 2 a mistake in the command line or a file."""

from typing import Annotated

import typer

from serving.operate.printing import say
from serving.operate.registry import actions, content, show
from serving.operate.registry.actions import Model
from serving.operate.registry.options import (
    AsJson,
    By,
    Config,
    MaybeRef,
    ModelName,
    Place,
    Ref,
    Why,
    author,
    failures_printed,
    found,
    named,
    out,
    person,
    place_of,
    print_json,
    warn_of,
)
from serving.registry.changes import approval, archival, revocation, rollback
from serving.registry.sentences import traffic

app = typer.Typer(
    name="registry",
    no_args_is_help=True,
    help="Keep versions of models, with their history and approvals. `push` makes a version of a folder, `approve` "
    "lets it serve, and a server serves it by `factory: registry:model`. The registry is where `registry.place` of the "
    "settings named with --config says, or --registry; by default in ~/.headway/state/registry. See docs/registry.md.",
)
app.add_typer(content.app)


@app.command("list")
def list_command(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="Only this model, with its versions.")] = None,
    config: Config = None,
    registry: Place = None,
    as_json: AsJson = False,
) -> None:
    """List the models, or the versions of one: who made them, who approved them, which serve."""
    place = place_of(config, registry)
    with failures_printed():
        models = actions.models_in(place) if model is None else [actions.read_model(place, model)]
    if as_json:
        facts = [show.model_facts(one) for one in models]
        print_json(facts if model is None else facts[0])
    elif not models:
        say("no models here; make a version with `headway registry push DIR --model NAME`")
    else:
        out.print(show.models_table(models) if model is None else show.versions_table(models[0]))
    warn_of(*models)


@app.command("show")
def show_command(reference: MaybeRef, config: Config = None, registry: Place = None, as_json: AsJson = False) -> None:
    """Show a version: its signature, files, metrics, approvals, and where it came from."""
    place, (model, version) = found(config, registry, reference)
    with failures_printed():
        manifest = actions.manifest_of(place, model.name, version)
    if as_json:
        print_json(
            {"model": model.name, **show.version_facts(model, version), "manifest": show.manifest_facts(manifest)}
        )
    else:
        out.print(show.facts_table(show.version_rows(model, version, manifest)))


@app.command("diff")
def diff_command(
    model: ModelName,
    old: Annotated[str, typer.Argument(metavar="OLD", help="A version of it, such as v3.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Another one.")],
    config: Config = None,
    registry: Place = None,
    as_json: AsJson = False,
) -> None:
    """Show what differs between two versions: metrics, signature, settings, code, data, files."""
    place = place_of(config, registry)
    with failures_printed():
        found = actions.read_model(place, model)
        versions = [actions.version_of(found, text) for text in (old, new)]
        rows = show.differences(*(actions.manifest_of(place, model, version) for version in versions))
    names = [f"v{version.number}" for version in versions]
    if as_json:
        print_json(
            {"old": names[0], "new": names[1], "differences": {name: {"old": a, "new": b} for name, a, b in rows}}
        )
    elif rows:
        out.print(show.differences_table(rows, *names))
    else:
        say("they do not differ")


@app.command("approve")
def approve_command(
    reference: Ref, why: Why = "", by: By = None, config: Config = None, registry: Place = None, as_json: AsJson = False
) -> None:
    """Consent to a version, so that it may serve. Its author cannot."""
    place, model, version = named(config, registry, reference)
    with failures_printed():
        changed = actions.changed(place, model, approval(author(by, why), version))
    _print_version(changed, version, as_json, "is approved")


@app.command("revoke")
def revoke_command(
    reference: Ref,
    of: Annotated[str | None, typer.Option("--of", metavar="NAME", help="Whose approval, if not one's own.")] = None,
    why: Why = "",
    by: By = None,
    config: Config = None,
    registry: Place = None,
    as_json: AsJson = False,
) -> None:
    """Take back an approval. Possible until the version is released."""
    place, model, version = named(config, registry, reference)
    with failures_printed():
        change = revocation(author(by, why), version, None if of is None else person(of))
        changed = actions.changed(place, model, change)
    _print_version(changed, version, as_json, "has an approval less")


@app.command("archive")
def archive_command(
    reference: Ref, why: Why = "", by: By = None, config: Config = None, registry: Place = None, as_json: AsJson = False
) -> None:
    """Retire a version that does not serve, for good. `gc` then removes its files."""
    place, model, version = named(config, registry, reference)
    with failures_printed():
        found = actions.version_of(actions.read_model(place, model), version)
        changed = actions.changed(place, model, archival(author(by, why), found.number))
    _print_version(changed, found.number, as_json, "is archived")


@app.command("rollback")
def rollback_command(
    model: ModelName,
    to: Annotated[
        str | None, typer.Option("--to", metavar="VERSION", help="This version, not the last stable one.")
    ] = None,
    why: Why = "",
    by: By = None,
    config: Config = None,
    registry: Place = None,
    as_json: AsJson = False,
) -> None:
    """Take the traffic back at once: from a candidate, else to the version that was stable before."""
    place = place_of(config, registry)
    with failures_printed():
        changed = actions.changed(place, model, rollback(author(by, why), to))
    route = changed.state.route
    assert route is not None
    if as_json:
        print_json({"model": model, "route": route.as_mapping()})
    else:
        say(f"{model}: {traffic(route)}")


@app.command("history")
def history_command(model: ModelName, config: Config = None, registry: Place = None, as_json: AsJson = False) -> None:
    """Tell what happened to a model: who did what, when and why."""
    place = place_of(config, registry)
    with failures_printed():
        found = actions.read_model(place, model)
    if as_json:
        print_json(
            [
                {"kind": one.kind, "at": one.at, "by": one.by, "why": one.why, **one.facts}
                | ({"route": one.split.as_mapping()} if one.split else {})
                for one in found.records
            ]
        )
    else:
        out.print(show.history_table(found))
    warn_of(found)


def _print_version(model: Model, text: str, as_json: bool, what: str) -> None:
    version = actions.version_of(model, text)
    if as_json:
        print_json(show.version_facts(model, version))
    else:
        approvers = ", ".join(show.person(one.by) for one in version.approvals) or "nobody"
        say(f"{model.name}@v{version.number} {what}; approved by {approvers}")
