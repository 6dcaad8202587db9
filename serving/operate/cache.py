"""The command `headway cache`: removes answers from the prediction cache of a running server."""

import json
from typing import Annotated, NoReturn
from urllib.parse import quote

import typer
from rich.console import Console

from serving.names import model_path
from serving.operate.asking import ServerRefused, asked

PATIENCE_S = 90.0  # the server looks for all answers of the model in Redis

app = typer.Typer(
    name="cache",
    no_args_is_help=True,
    help="The prediction cache of models with a section `cache` in their settings.",
)
err = Console(stderr=True, soft_wrap=True)


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
    where = f"{url.rstrip('/')}{model_path(quote(model, safe=''))}/cache/clear"
    try:
        removed: dict[str, int] = asked(where, key or "", body, patience_s=PATIENCE_S)
    except ServerRefused as refusal:
        _fail(str(refusal))
    except OSError as error:
        _fail(f"{url} does not answer: {error}")
    if as_json:
        typer.echo(json.dumps(removed))
    else:
        whose = "" if tenant is None else f" of tenant {tenant or '(none)'}"
        typer.echo(
            f"{model}: removed {removed['in_memory']} answers{whose} from memory, {removed['shared']} from Redis"
        )


def _fail(text: str) -> NoReturn:
    err.print(text, style="red", markup=False, highlight=False)
    raise typer.Exit(1)
