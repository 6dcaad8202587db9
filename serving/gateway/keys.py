"""API keys as records: what is kept of a key, and what a list of records says about all keys.

Pure: no store, no clock. A record is written once (`serving/gateway/key_log.py`); the keys are the fold of all records
in their order. How a key looks is in `key_text.py`.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

from serving.gateway.key_text import ID, NewKey
from serving.store.log import BadRecord
from serving.traffic.tenants import NAME as TENANT_NAME

VERSION = 1  # of the records
_LARGEST_S = 253_402_300_799  # the end of the year 9999


class Scope(StrEnum):
    """A right of the holder of a key. No scope contains another."""

    PREDICT = "predict"
    FEATURES_WRITE = "features:write"
    FEEDBACK = "feedback"
    REGISTRY_WRITE = "registry:write"
    REGISTRY_APPROVE = "registry:approve"
    RELEASE = "release"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is known to the server. Times are whole seconds since 1970.

    digest: the SHA-256 of the secret. expires_s: None for never; the key is valid before, not at, that second.
    revoked_s: None if it is not revoked. replaced_by: the id of the key that a rotation put in its place.
    """

    id: str
    digest: bytes = field(repr=False)
    tenant: str
    scopes: frozenset[Scope]
    created_s: int
    expires_s: int | None = None
    revoked_s: int | None = None
    replaced_by: str = ""

    def state(self, now_s: int) -> Literal["active", "expired", "revoked"]:
        if self.revoked_s is not None:
            return "revoked"
        return "active" if self.expires_s is None or now_s < self.expires_s else "expired"


Keys = Mapping[str, Key]


def created(
    new: NewKey, *, tenant: str, scopes: Iterable[str], expires_s: int | None, now_s: int, by: str, nonce: str
) -> bytes:
    """Returns the record of a new key. nonce: tells equal records of two writers apart."""
    return _written("created", now_s, by, nonce, _kept(new) | _rights(tenant, scopes, expires_s))


def revoked(id: str, *, now_s: int, by: str, nonce: str) -> bytes:
    """Returns the record that ends this key."""
    return _written("revoked", now_s, by, nonce, {"key": id})


def rotated(
    old: Key, new: NewKey, *, until_s: int, expires_s: int | None, now_s: int, by: str, nonce: str
) -> bytes:  # fmt: skip
    """Returns the record that puts a new key in the place of an old one, which stays valid until `until_s`.

    One record, so that no failure leaves the half of it.
    """
    return _written(
        "rotated", now_s, by, nonce, {"old": old.id, "until_s": until_s, "expires_s": expires_s} | _kept(new)
    )


def folded(keys: Keys, record: bytes) -> Keys:
    """Returns the keys after this record. Raises BadRecord, with the keys unchanged."""
    value = _parsed(record)
    kind = value["kind"]
    if kind == "created":
        new = Key(
            id=_new_id(value, keys),
            digest=_digest(value),
            tenant=_tenant(value),
            scopes=_scopes(value),
            created_s=_second(value, "at_s"),
            expires_s=_second_or_never(value, "expires_s"),
        )
        return {**keys, new.id: new}
    if kind == "revoked":
        key = _known(value, "key", keys)
        if key.revoked_s is not None:
            return keys  # the first one counts
        return {**keys, key.id: replace(key, revoked_s=_second(value, "at_s"))}
    if kind == "rotated":
        old = _known(value, "old", keys)
        until_s, at_s = _second(value, "until_s"), _second(value, "at_s")
        if old.revoked_s is not None or old.replaced_by:
            raise BadRecord("rotates a key that is revoked or already rotated")
        new = replace(
            old,
            id=_new_id(value, keys),
            digest=_digest(value),
            created_s=at_s,
            expires_s=_second_or_never(value, "expires_s"),
        )
        ends_s = until_s if old.expires_s is None else min(until_s, old.expires_s)
        return {**keys, old.id: replace(old, expires_s=ends_s, replaced_by=new.id), new.id: new}
    if kind == "void":
        return keys  # a person put it in the place of a record that was lost
    raise BadRecord("is of a kind that this release does not know; use the release that wrote it, or a newer one")


def closed_by(keys: Keys, record: bytes) -> Keys:
    """Returns the keys after a record that could not be folded: those that it names are revoked.

    It may have ended them. Without this, a revocation by a newer release would have no effect here.
    """
    try:
        value = json.loads(record)
    except (ValueError, RecursionError):
        return keys
    named = [value.get(name) for name in ("key", "old")] if isinstance(value, dict) else []
    closed = {id: replace(keys[id], revoked_s=0) for id in named if isinstance(id, str) and id in keys}
    return {**keys, **closed} if closed else keys


def _kept(new: NewKey) -> dict[str, Any]:
    return {"key": new.id, "secret_sha256": new.digest.hex()}


def _rights(tenant: str, scopes: Iterable[str], expires_s: int | None) -> dict[str, Any]:
    return {"tenant": tenant, "scopes": sorted(set(scopes)), "expires_s": expires_s}


def _written(kind: str, now_s: int, by: str, nonce: str, facts: Mapping[str, Any]) -> bytes:
    value = {"version": VERSION, "kind": kind, "at_s": now_s, **facts, "by": by, "nonce": nonce}
    return json.dumps(value, separators=(",", ":")).encode()


def _parsed(record: bytes) -> dict[str, Any]:
    try:
        value = json.loads(record)
    except (ValueError, RecursionError):
        raise BadRecord("is not JSON: it was cut off, or something else wrote it") from None
    if not isinstance(value, dict) or "version" not in value or not isinstance(value.get("kind"), str):
        raise BadRecord("is no record of a key")
    if value["version"] != VERSION or isinstance(value["version"], bool):
        raise BadRecord(f"is not of version {VERSION}, the only one that this release reads; use a newer release")
    return value


def _new_id(value: Mapping[str, Any], keys: Keys) -> str:
    id = value.get("key")
    if not isinstance(id, str) or not ID.fullmatch(id):
        raise BadRecord("holds no id of a key")
    if id in keys:
        raise BadRecord("makes a key whose id there is already")
    return id


def _known(value: Mapping[str, Any], name: str, keys: Keys) -> Key:
    id = value.get(name)
    if not isinstance(id, str) or id not in keys:
        raise BadRecord("is about a key that no record before it has made")
    return keys[id]


def _digest(value: Mapping[str, Any]) -> bytes:
    text = value.get("secret_sha256")
    if not isinstance(text, str) or not re.fullmatch("[0-9a-f]{64}", text):
        raise BadRecord("holds no SHA-256 of a secret")
    return bytes.fromhex(text)


def _tenant(value: Mapping[str, Any]) -> str:
    tenant = value.get("tenant")
    if not isinstance(tenant, str) or not TENANT_NAME.fullmatch(tenant):
        raise BadRecord("names no tenant")
    return tenant


def _scopes(value: Mapping[str, Any]) -> frozenset[Scope]:
    scopes = value.get("scopes")
    if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
        raise BadRecord("lists no scopes")
    try:
        return frozenset(map(Scope, scopes))
    except ValueError:
        raise BadRecord("grants a scope that this release does not know; use a newer release") from None


def _second(value: Mapping[str, Any], name: str) -> int:
    second = value.get(name)
    if not isinstance(second, int) or isinstance(second, bool) or not 0 <= second <= _LARGEST_S:
        raise BadRecord(f"holds no time in `{name}`")
    return second


def _second_or_never(value: Mapping[str, Any], name: str) -> int | None:
    return None if name in value and value[name] is None else _second(value, name)
