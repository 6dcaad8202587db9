"""The caller of a request, as its credential says. A plain value: how it was found out is in `callers.py`."""

from dataclasses import dataclass

from serving.gateway.keys import Scope


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller whose credential is valid.

    key_id: names the credential in logs and in the audit: the id of a key, or `sub:` and the subject of a token.
    expires_ns: nanoseconds since 1970; None for never. The caller is valid before, not at, that instant.
    """

    tenant: str
    key_id: str
    scopes: frozenset[Scope]
    expires_ns: int | None = None
