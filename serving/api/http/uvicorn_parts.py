"""The private parts of uvicorn that this package uses: its connection, its table of protocols by name, and the loop of
its server.

uvicorn may change them in any release. Therefore `pyproject.toml` bounds its version, and
`tests/api/test_uvicorn_parts.py` shows which parts a new version has changed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import uvicorn.config
import uvicorn.server
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

AUTO = "uvicorn.protocols.http.auto:AutoHTTPProtocol"
TICK_S = 0.5
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


class Server(Protocol):
    """uvicorn's server, whose main loop asks `on_tick` ten times a second whether to end.

    on_tick: also renews the `date` of answers if its argument is a multiple of ten, and returns whether to end.
    """

    def on_tick(self, counter: int) -> Awaitable[bool]: ...


async def tick_rarely(server: Server) -> None:
    """Does what uvicorn's main loop does, twice a second: a server at rest has nothing else to do, and a tenth of a
    second costs it more than all its health checks."""
    while not await server.on_tick(0):  # noqa: ASYNC110 - whoever ends a server only sets a flag of it
        await asyncio.sleep(TICK_S)


def replace_main_loop() -> bool:
    """Makes servers that begin from now on tick rarely.

    Returns False and changes nothing if uvicorn's main loop calls something else than expected."""
    own = uvicorn.server.Server.main_loop
    if set(own.__code__.co_names) != {"on_tick", "asyncio", "sleep"}:
        return own is tick_rarely
    uvicorn.server.Server.main_loop = tick_rarely
    return True


def replace_default_protocol(path: str) -> bool:
    """Makes servers whose protocol is "auto" create connections with the function at this import path.

    Returns False and changes nothing if uvicorn's own "auto" is not the expected one."""
    if uvicorn.config.HTTP_PROTOCOLS.get("auto") != AUTO:
        return False
    uvicorn.config.HTTP_PROTOCOLS["auto"] = path
    return True
