"""Changes of API keys by a person: what each needs and refuses, and how it is carried out. Prints nothing.

The rules are functions of the keys as they are when the record is written (`KeyLog.append` may ask again).
"""

import asyncio
import getpass
import os
from collections.abc import Callable, Iterable
from secrets import token_hex
from typing import NamedTuple

from serving.gateway import keys as records
from serving.gateway.audit import AuditLog, Entry, audit_folder
from serving.gateway.key_log import KeyLog
from serving.gateway.key_text import NewKey
from serving.gateway.keys import Key, Keys
from serving.operate.moments import shown
from serving.store.objects import open_store


class Refused(Exception):
    """The change is not possible. The text says why."""


class Change(NamedTuple):
    """A change of the key with this id. decide: returns its record, or raises Refused.

    in_any_case: also if other records cannot be read.
    """

    verb: str
    id: str
    decide: Callable[[Keys], bytes]
    in_any_case: bool = False


def creation(new: NewKey, tenant: str, scopes: Iterable[str], *, lasts_s: int | None, now_s: int) -> Change:
    """Returns the change that makes this key. lasts_s: None for ever."""
    expires_s = None if lasts_s is None else now_s + lasts_s
    record = records.created(
        new, tenant=tenant, scopes=scopes, expires_s=expires_s, now_s=now_s, by=user(), nonce=token_hex(8)
    )
    return Change("create", new.id, lambda keys: record)


def revocation(id: str, *, now_s: int) -> Change:
    """Returns the change that ends a key."""

    def decide(keys: Keys) -> bytes:
        key = _known(keys, id)
        if key.revoked_s is not None:
            raise Refused(f"{id} is revoked already, since {shown(key.revoked_s)}")
        return records.revoked(id, now_s=now_s, by=user(), nonce=token_hex(8))

    return Change("revoke", id, decide, in_any_case=True)


def rotation(id: str, new: NewKey, *, overlap_s: int, lasts_s: int | None, as_before: bool, now_s: int) -> Change:
    """Returns the change that puts a new key in the place of an old one.

    as_before: the new key lasts as long as the old one was made for, whatever `lasts_s` says.
    """

    def decide(keys: Keys) -> bytes:
        old = _known(keys, id)
        if (state := old.state(now_s)) != "active":
            raise Refused(f"{id} is {state}; make a new key with `headway keys create`")
        if old.replaced_by:
            raise Refused(f"{id} is rotated already: {old.replaced_by} is in its place")
        span_s = lasts_s
        if as_before:
            span_s = None if old.expires_s is None else old.expires_s - old.created_s
        expires_s = None if span_s is None else now_s + span_s
        return records.rotated(
            old, new, until_s=now_s + overlap_s, expires_s=expires_s, now_s=now_s, by=user(), nonce=token_hex(8)
        )

    return Change("rotate", id, decide)


def read(place: str) -> KeyLog:
    """Returns the keys at this place. Raises BadPath, StoreUnreachable and ModuleNotFoundError."""

    async def reading() -> KeyLog:
        log = KeyLog(open_store(place))
        await log.read_new()
        return log

    return asyncio.run(reading())


def carry_out(change: Change, place: str, *, now_s: int) -> KeyLog:
    """Adds the record of the change and notes it in the audit, done or not. Returns the keys as they are then.

    Raises Refused, RecordsUnreadable, Busy, and what `read` raises.
    """
    tenant, result = "", "failed"

    async def changing() -> KeyLog:
        log = KeyLog(open_store(place))
        await log.append(change.decide, in_any_case=change.in_any_case)
        return log

    try:
        log = asyncio.run(changing())
        tenant, result = log.keys[change.id].tenant, "done"
        return log
    finally:
        action = f"keys {change.verb}"
        entry = Entry(at_s=now_s, tenant=tenant, key_id=user(), action=action, object=change.id, result=result)
        _note(place, entry)


def user() -> str:
    """Returns who runs this command, for records and the audit."""
    try:
        return f"user:{getpass.getuser()}"
    except (KeyError, OSError, ImportError):  # a container's user may have no name
        return f"user:{os.getuid()}"


def _known(keys: Keys, id: str) -> Key:
    if id not in keys:
        raise Refused(f"no key has the id {id}; `headway keys list` shows them")
    return keys[id]


def _note(place: str, entry: Entry) -> None:
    """Notes a change in the audit beside the keys. On S3 there is none: the records themselves say who wrote them."""
    folder = audit_folder(place)
    if folder is not None and folder.parent.is_dir():
        AuditLog(folder, "keys").write([entry])
