"""The commands `headway keys`: make, list, revoke and rotate API keys. The records are in the state that servers read.

A key is printed once, on standard output and nowhere else; what people should know is on standard error.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_bytes
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serving.config import SettingsError, load_settings
from serving.core.clock import Calendar
from serving.gateway.key_log import KeyLog
from serving.gateway.key_text import NewKey, id_of, make_key
from serving.gateway.keys import Key, Scope
from serving.operate import key_changes
from serving.operate.key_changes import Change, Refused
from serving.operate.moments import shown, span_s
from serving.operate.printing import fail, mistake, say, warn
from serving.store.log import Busy, RecordsUnreadable, RecordTooLarge
from serving.store.objects import BadPath, StoreUnreachable, scheme_of
from serving.store.place import NoState, state_place
from serving.traffic.tenants import NAME as TENANT_NAME

app = typer.Typer(
    name="keys",
    no_args_is_help=True,
    help="Make, list, revoke and rotate the API keys that clients send as `Authorization: Bearer hw_...`. Running "
    "servers follow within five seconds. Keys are kept in `server.state` of the settings named with --config, or where "
    "--state says; only a SHA-256 of each is stored.",
)
out = Console(soft_wrap=True)

Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="The settings whose `server.state` holds the keys.")
]
State = Annotated[
    str | None, typer.Option("--state", metavar="PLACE", help="The state instead: a folder, or s3://bucket/folder.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs instead of text for people.")]
KeyId = Annotated[
    str, typer.Argument(metavar="ID", help="The id of a key, the part between the first two underscores.")
]


@app.command()
def create(
    tenant: Annotated[str, typer.Option(help="The tenant on whose behalf the key speaks.")],
    scope: Annotated[
        list[Scope], typer.Option(help="What the holder may do. Repeat it for several. No scope contains another.")
    ],
    expires: Annotated[
        str, typer.Option(help="When the key ends: 90d, 12h, 30m from now, or `never`.", show_default=True)
    ] = "90d",
    config: Config = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it. It cannot be printed again."""
    if not TENANT_NAME.fullmatch(tenant):
        mistake("--tenant: use 1 to 64 visible ASCII characters, without blanks")
    now_s, new = _now_s(), make_key(token_bytes)
    lasts_s = _span("--expires", expires, or_never=True)
    log = _carried_out(key_changes.creation(new, tenant, scope, lasts_s=lasts_s, now_s=now_s), config, state, now_s)
    _print_new(new, log.keys[new.id], as_json, now_s)


@app.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Only the keys of this tenant.")] = None,
    config: Config = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """List all keys with tenant, scopes, times and state, the newest first. No key is shown, only its id."""
    with _failures_printed():
        log = key_changes.read(_place(config, state))
    now_s = _now_s()
    keys = sorted(log.keys.values(), key=lambda key: (-key.created_s, key.id))
    chosen = [key for key in keys if tenant in (None, key.tenant)]
    if as_json:
        typer.echo(json.dumps([_facts(key, now_s) for key in chosen], indent=2))
    elif chosen:
        table = Table(box=None, header_style="dim", pad_edge=False)
        for column in ("id", "tenant", "scopes", "state", "created", "expires"):
            table.add_column(column, overflow="fold", no_wrap=column not in ("tenant", "scopes"))
        for key in chosen:
            facts = _facts(key, now_s)
            scopes = " ".join(facts["scopes"])
            cells = (
                facts["id"],
                facts["tenant"],
                scopes,
                facts["state"],
                facts["created"],
                facts["expires"] or "never",
            )
            table.add_row(*map(escape, cells))
        out.print(table)
    else:
        say("no keys here; make one with `headway keys create`")
    for trouble in (*log.unreadable, *log.foreign):
        warn(str(trouble))


@app.command()
def revoke(id: KeyId, config: Config = None, state: State = None, as_json: AsJson = False) -> None:
    """End a key at once, for good. Servers refuse it within five seconds."""
    wanted, now_s = _id(id), _now_s()
    log = _carried_out(key_changes.revocation(wanted, now_s=now_s), config, state, now_s)
    if as_json:
        typer.echo(json.dumps(_facts(log.keys[wanted], now_s), indent=2))
    else:
        say(f"{wanted} of tenant {log.keys[wanted].tenant} is revoked; servers refuse it within five seconds")


@app.command()
def rotate(
    id: KeyId,
    overlap: Annotated[str, typer.Option(help="How long the old key stays valid: 24h, 30m, 0s.")] = "24h",
    expires: Annotated[
        str | None,
        typer.Option(help="When the new key ends: 90d from now, or `never`. Unset: it lasts as the old one."),
    ] = None,
    config: Config = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Make and print a new key in place of an old one, which stays valid for a time. Tenant and scopes are the same."""
    wanted, now_s, new = _id(id), _now_s(), make_key(token_bytes)
    change = key_changes.rotation(
        wanted,
        new,
        overlap_s=_span("--overlap", overlap) or 0,
        lasts_s=None if expires is None else _span("--expires", expires, or_never=True),
        as_before=expires is None,
        now_s=now_s,
    )
    log = _carried_out(change, config, state, now_s)
    _print_new(new, log.keys[new.id], as_json, now_s, old=log.keys[wanted])


def _carried_out(change: Change, config: Path | None, state: str | None, now_s: int) -> KeyLog:
    place = _place(config, state)
    with _failures_printed():
        return key_changes.carry_out(change, place, now_s=now_s)


def _place(config: Path | None, state: str | None) -> str:
    if config is not None and state is not None:
        mistake("give --config or --state, not both")
    try:
        setting = str(Path(state).expanduser()) if state and "://" not in state else state
        if config is not None:
            setting = load_settings(config).server.state
        place = state_place(setting)
        scheme_of(place)
        return place
    except SettingsError as error:
        mistake("\n".join(error.mistakes))
    except (BadPath, NoState) as error:
        mistake(str(error))


@contextmanager
def _failures_printed() -> Iterator[None]:
    """Prints why a change or a reading failed, and exits with code 1."""
    try:
        yield
    except StoreUnreachable as error:
        text = f"the keys cannot be reached: {error}"
    except RecordTooLarge as error:
        text = f"nothing was changed: the record is too large: {error}"
    except RecordsUnreadable as error:
        text = f"nothing was changed, because not all records can be read: {error}"
    except (Refused, Busy, BadPath, ModuleNotFoundError) as error:
        text = str(error)
    else:
        return
    fail(text)


def _print_new(new: NewKey, key: Key, as_json: bool, now_s: int, *, old: Key | None = None) -> None:
    if as_json:
        facts = {"key": new.text, **_facts(key, now_s)}
        typer.echo(json.dumps(facts | ({"replaces": _facts(old, now_s)} if old is not None else {}), indent=2))
        return
    typer.echo(new.text)
    ends = "never ends" if key.expires_s is None else f"ends {_time(key.expires_s)}"
    say(f"id {key.id}, tenant {key.tenant}, scopes {', '.join(sorted(key.scopes))}; {ends}")
    if old is not None:
        say(f"{old.id}, which it replaces, is valid until {_time(old.expires_s)}")
    say("This is the only time that the key is shown. Servers take it within five seconds.")


def _facts(key: Key, now_s: int) -> dict[str, Any]:
    return {
        "id": key.id,
        "tenant": key.tenant,
        "scopes": sorted(key.scopes),
        "state": key.state(now_s),
        "created": _time(key.created_s),
        "expires": _time(key.expires_s),
        "revoked": _time(key.revoked_s),
        "replaced_by": key.replaced_by or None,
    }


def _time(at_s: int | None) -> str | None:
    return None if at_s is None else shown(at_s)


def _span(option: str, text: str, *, or_never: bool = False) -> int | None:
    """Returns the seconds of `90d`; None for `never`. Exits with code 2 for anything else."""
    if or_never and text == "never":
        return None
    seconds = span_s(text)
    if seconds is None or (or_never and seconds == 0):
        mistake(f"{option}: write a number with its unit, such as 90d, 12h or 30m" + (", or never" if or_never else ""))
    return seconds


def _id(text: str) -> str:
    """Returns the id in an argument. A whole key is taken too, and not repeated, whatever is wrong with it."""
    if not (id := id_of(text)):
        mistake("ID: that is no id of a key; `headway keys list` shows them")
    return id


def _now_s() -> int:
    return Calendar().now_ns() // 1_000_000_000
