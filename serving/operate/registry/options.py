"""Options that the commands `headway registry` share, the place and version that they name, and how they end."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Annotated

import typer
from rich.console import Console

from serving.config import SettingsError, load_settings
from serving.core.clock import Calendar
from serving.operate.key_changes import user
from serving.operate.printing import fail, mistake, warn
from serving.operate.registry import actions
from serving.operate.registry.actions import Model
from serving.registry.artifacts import BadArtifact
from serving.registry.changes import Author, Refused
from serving.registry.inspection import UnsafeFile
from serving.registry.reference import named as parsed
from serving.registry.state import Version
from serving.store.log import Busy, RecordsUnreadable, RecordTooLarge
from serving.store.objects import BadPath, StoreUnreachable, scheme_of
from serving.store.place import NoState, registry_place

LONGEST_TEXT = 1000  # of a record; the front takes no longer one either

out = Console(soft_wrap=True)

Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="The settings that name the registry.")]
Place = Annotated[
    str | None,
    typer.Option("--registry", metavar="PLACE", help="The registry instead: a folder, or s3://bucket/folder."),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs instead of text for people.")]
By = Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who does it, if not the user of this machine.")]
Why = Annotated[str, typer.Option("--why", help="The reason, in a sentence, for the history.")]
ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="A model, such as `ranker`.")]
Ref = Annotated[str, typer.Argument(metavar="MODEL@VERSION", help="A version: ranker@v4, ranker@4 or ranker@<hash>.")]
MaybeRef = Annotated[str, typer.Argument(metavar="MODEL[@VERSION]", help="A version; without one the newest.")]


def found(config: Path | None, registry: str | None, reference: str) -> tuple[str, tuple[Model, Version]]:
    place, name, text = named(config, registry, reference, whole_model=True)
    with failures_printed():
        model = actions.read_model(place, name)
        return place, (model, actions.version_of(model, text or None))


def named(
    config: Path | None, registry: str | None, reference: str, *, whole_model: bool = False
) -> tuple[str, str, str]:
    """Returns the place of the registry, the model and the version that an argument names, "" for none."""
    model, version = parsed(reference)
    if version is None and not whole_model:
        mistake(f"{reference}: name a version, as in {model}@v4")
    return place_of(config, registry), model, version or ""


def place_of(config: Path | None, registry: str | None) -> str:
    if config is not None and registry is not None:
        mistake("give --config or --registry, not both")
    if registry == "":
        mistake("--registry: is empty; name a folder, or s3://bucket/folder")
    try:
        setting = str(Path(registry).expanduser()) if registry and "://" not in registry else registry
        state = None
        if config is not None:
            settings = load_settings(config)
            setting, state = settings.registry.place, settings.server.state
        place = registry_place(setting, state)
        scheme_of(place)
        return place
    except SettingsError as error:
        mistake("\n".join(error.mistakes))
    except (BadPath, NoState) as error:
        mistake(str(error))


def author(by: str | None, why: str) -> Author:
    name = user() if by is None else person(_line("--by", by, least=1))
    return Author(name, now_s(), token_hex(8), _line("--why", why))


def _line(option: str, text: str, least: int = 0) -> str:
    """Returns a text of the history; a mistake if it would change what a terminal shows of others."""
    if not text.isprintable() or not least <= len(text) <= LONGEST_TEXT:
        mistake(f"{option}: must be a text of one line, of {least} to {LONGEST_TEXT:,} characters")
    return text


def person(name: str) -> str:
    return name if ":" in name else f"user:{name}"


@contextmanager
def failures_printed() -> Iterator[None]:
    """Prints why something was not done, and exits with code 1; with 2 for mistakes in files of settings."""
    try:
        yield
        return
    except SettingsError as error:
        mistake("\n".join(error.mistakes))
    except StoreUnreachable as error:
        text = f"the registry cannot be reached: {error}"
    except RecordsUnreadable as error:
        text = f"nothing was changed, because not all records can be read: {error}"
    except RecordTooLarge as error:
        text = f"nothing was changed: the record is too large: {error}"
    except (Refused, Busy, BadPath, BadArtifact, UnsafeFile, ModuleNotFoundError, OSError) as error:
        text = str(error)
    fail(text)


def warn_of(*models: Model) -> None:
    for model in models:
        for trouble in model.trouble:
            warn(trouble)


def print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def now_s() -> int:
    return Calendar().now_ns() // 1_000_000_000
