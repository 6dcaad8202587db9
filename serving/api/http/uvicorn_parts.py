"""The private parts of uvicorn that this package uses: its connection, and its table of protocols by name.

uvicorn may change them in any release. Therefore `pyproject.toml` bounds its version, and
`tests/api/test_uvicorn_parts.py` shows which parts a new version has changed.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

import uvicorn.config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

AUTO = "uvicorn.protocols.http.auto:AutoHTTPProtocol"
status_lines: list[bytes] | dict[int, bytes] = STATUS_LINE


class Cycle(Protocol):
    """A request that uvicorn handles."""

    response_started: bool
    response_complete: bool


class Flow(Protocol):
    """Backpressure of a connection, in both directions."""

    write_paused: bool

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Parser(Protocol):
    """The parser of requests."""

    def should_upgrade(self) -> bool: ...


class Shared(Protocol):
    """The state that all connections of a server share.

    default_headers: the headers of every answer; replaced by a new list each second.
    """

    default_headers: list[tuple[bytes, bytes]]
    total_requests: int


class UvicornConnection(HttpToolsProtocol):  # type: ignore[misc]  # uvicorn is not followed
    """uvicorn's connection, with the attributes that `InferConnection` uses.

    cycle: the latest request that uvicorn handles; None before the first.
    """

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    server_state: Shared
    flow: Flow
    cycle: Cycle | None
    parser: Parser
    timeout_keep_alive: float
    timeout_keep_alive_task: asyncio.TimerHandle | None
    _unset_keepalive_if_required: Callable[[], None]


def replace_default_protocol(path: str) -> bool:
    """Makes servers whose protocol is "auto" create connections with the function at this import path.

    Returns False and changes nothing if uvicorn's own "auto" is not the expected one."""
    if uvicorn.config.HTTP_PROTOCOLS.get("auto") != AUTO:
        return False
    uvicorn.config.HTTP_PROTOCOLS["auto"] = path
    return True
