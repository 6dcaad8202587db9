"""The command `headway route`: shows and changes which version of a model answers requests that name none."""

import json
from typing import Annotated, Any

import typer
from rich.console import Console

from serving.operate.asking import address_of, asked, failures_printed
from serving.operate.key_changes import user
from serving.traffic.routes import SHARES

PATIENCE_S = 30.0

app = typer.Typer(
    name="route",
    no_args_is_help=True,
    help="Which version of a model answers requests that name none. See docs/routes.md.",
)
out = Console(soft_wrap=True)

Model = Annotated[str, typer.Argument(metavar="MODEL", help="The name of the model.")]
Url = Annotated[str, typer.Option(help="The address of the server.")]
Key = Annotated[str | None, typer.Option(envvar="HEADWAY_KEY", help="A key, to change routes with scope `release`.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs instead of text for people.")]
LOCAL = "http://127.0.0.1:8000"


@app.command()
def show(model: Model, url: Url = LOCAL, key: Key = None, as_json: AsJson = False) -> None:
    """Show which version of MODEL answers, and the share of a candidate."""
    _print(_asked(url, model, key, None), as_json=as_json)


@app.command(name="set")
def set_(
    model: Model,
    wanted: Annotated[
        list[str],
        typer.Argument(metavar="FIELD=VALUE...", help="`stable=1 candidate=2 share=5%`; `candidate=` for none."),
    ],
    why: Annotated[str, typer.Option(help="The reason, for the history.")] = "",
    url: Url = LOCAL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Change which version of MODEL answers. What is not named stays as it is."""
    fields: dict[str, str | None] = {"by": user(), "why": why}
    for one in wanted:
        name, sign, value = one.partition("=")
        if not sign or name not in ("stable", "candidate", "share"):
            raise typer.BadParameter(f"{one!r} is not of the form stable=1, candidate=2 or share=5%")
        fields[name] = value or None
    _print(_asked(url, model, key, {name: value for name, value in fields.items() if value != ""}), as_json=as_json)


def _asked(url: str, model: str, key: str | None, wanted: dict[str, Any] | None) -> dict[str, Any]:
    body = None if wanted is None else json.dumps(wanted).encode()
    with failures_printed(url):
        route: dict[str, Any] = asked(f"{address_of(url, model)}/route", key or "", body, patience_s=PATIENCE_S)
    return route


def _print(route: dict[str, Any], *, as_json: bool) -> None:
    out.print(json.dumps(route) if as_json else sentence(route), markup=False, highlight=False)


def sentence(route: dict[str, Any]) -> str:
    """Returns what a route says, for people."""
    stable, candidate, share = route["stable"], route["candidate"], route["share"] / SHARES
    told = f"{route['model']}: version {stable} answers"
    if candidate is None or not share:
        told += " all requests"
        told += f", version {candidate} is a candidate without a share" if candidate is not None else ""
    else:
        told += f" {1 - share:.2%} of the requests, version {candidate} answers {share:.2%}"
    others = [version for version in route["versions"] if version not in (stable, candidate)]
    return told + (f"; also served: {', '.join(others)}" if others else "")
