"""The command `headway cache`: removes answers from the prediction cache of a running server."""

import json
from typing import Annotated

import typer

from serving.operate.asking import address_of, asked, failures_printed

PATIENCE_S = 90.0  # the server looks for all answers of the model in Redis

app = typer.Typer(
    name="cache",
    no_args_is_help=True,
    help="The prediction cache of models with a section `cache` in their settings.",
)


@app.callback()
def _options() -> None:
    """Keeps `clear` a command of its own, as long as it is the only one."""


@app.command()
def clear(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The name of the model.")],
    tenant: Annotated[
        str | None, typer.Option(help="Only the answers of this tenant; `''` for requests without one.")
    ] = None,
    url: Annotated[str, typer.Option(help="The address of the server.")] = "http://127.0.0.1:8000",
    key: Annotated[
        str | None, typer.Option(envvar="HEADWAY_KEY", help="A key with the scope `admin`, or the admin token.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs instead of text for people.")] = False,
) -> None:
    """Remove the answers of MODEL from the memory of all replicas and from Redis."""
    body = json.dumps({} if tenant is None else {"tenant": tenant}).encode()
    with failures_printed(url):
        where = f"{address_of(url, model)}/cache/clear"
        removed: dict[str, int] = asked(where, key or "", body, patience_s=PATIENCE_S)
    if as_json:
        typer.echo(json.dumps(removed))
    else:
        whose = "" if tenant is None else f" of tenant {tenant or '(none)'}"
        typer.echo(
            f"{model}: removed {removed['in_memory']} answers{whose} from memory, {removed['shared']} from Redis"
        )
