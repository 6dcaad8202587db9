"""The interface of gates, which decide who may do what, and the values that they are asked with.

Every route of both wires asks a gate, also where nobody needs a credential. `LocalGate` (`local_gate.py`) admits
everybody but guards operations that change the server; `KeyGate` (`serving/gateway/gate.py`) asks for credentials.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple, Protocol


class Action(StrEnum):
    """Something that can be asked of the server."""

    PREDICT = "predict"
    READ = "read"  # metadata, readiness and statistics of models, the index, the OpenAPI document
    LOAD = "load"
    UNLOAD = "unload"
    TRACE = "trace"
    LOG = "log"
    CACHE = "cache"
    SHARED_MEMORY = "shared memory"
    DEBUG = "debug"
    METRICS = "metrics"
    PAGES = "pages"  # the numbers that pages show; the pages themselves hold none
    AUDIT = "audit"
    KEYS = "keys"
    ROUTE = "route"
    FEATURES_READ = "read features"
    FEATURES_WRITE = "write features"
    RELEASE = "release"  # begins, holds, resumes and aborts releases
    APPROVE = "approve"  # approves versions, and takes approvals back
    FEEDBACK = "feedback"


CHANGES = frozenset(
    {
        Action.LOAD,
        Action.UNLOAD,
        Action.TRACE,
        Action.LOG,
        Action.CACHE,
        Action.SHARED_MEMORY,
        Action.ROUTE,
        Action.RELEASE,
        Action.APPROVE,
    }
)


class Peer(NamedTuple):
    """The other end of a request, as its connection and headers describe it.

    header: returns the value of a header by its lower-case name, "" if it was not sent.
    address: the IP address of the other end of the connection, "" if unknown.
    passes: what a gate keeps about these headers, for a peer that stands for all requests with equal ones; else None.
    """

    header: Callable[[str], str]
    address: str = ""
    passes: dict[tuple[str, str], Any] | None = None


class Caller(Protocol):
    """A caller that a gate has admitted. key_id: names its credential in logs, "" if it needed none."""

    @property
    def tenant(self) -> str: ...

    @property
    def key_id(self) -> str: ...


class Anybody(NamedTuple):
    """A caller that needed no credential. Its requests name their tenant themselves, if the settings allow that."""

    tenant: str = ""
    key_id: str = ""


ANYBODY = Anybody()


class Gate(Protocol):
    """Decides who may do what.

    asks: whether callers need a credential, which then decides about their tenant. If not, PREDICT, READ and PAGES are
        open to everybody, and a caller of them need not be checked.
    """

    asks: bool

    def check(self, peer: Peer, action: Action, model: str = "", version: str = "", *, quietly: bool = False) -> Caller:
        """Returns the caller. Raises CallFailed if it may not do this: 401, 403, 429 or 503, and 404 for a model that
        it may not see, as for one that is not there. model, version: as the client names them, "" for none.
        quietly: keeps no record of a refusal, since the same will be asked again."""
        ...

    def allows(self, peer: Peer, action: Action) -> bool:
        """Returns whether the peer may do this to some model. Keeps no record of it."""
        ...

    def sees(self, caller: Caller, model: str) -> bool:
        """Returns whether the model exists for this caller."""
        ...

    def sees_tenants(self, caller: Caller) -> bool:
        """Returns whether this caller is shown the numbers of all tenants, not only those of its own."""
        ...


def http_peer(scope: Mapping[str, Any]) -> Peer:
    """Returns the peer of a request from its ASGI scope."""
    headers = dict(reversed(scope["headers"]))  # if a header is repeated, the first one counts

    def header(name: str) -> str:
        value: bytes = headers.get(name.encode(), b"")
        return value.decode("latin-1")

    return Peer(header, (scope.get("client") or ("",))[0])
