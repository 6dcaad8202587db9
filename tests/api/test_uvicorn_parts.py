"""The private parts of the installed uvicorn on which the fast path relies. If a test fails after an upgrade, adapt
serving/api/http/uvicorn_parts.py and serving/api/http/connection.py, or lower the bound in pyproject.toml."""

import asyncio
import inspect
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import get_type_hints

import pytest
import uvicorn
from packaging.requirements import Requirement
from uvicorn.server import ServerState

from serving.api.http import uvicorn_parts
from serving.api.http.uvicorn_parts import (
    AUTO,
    Cycle,
    Flow,
    Parser,
    Shared,
    UvicornConnection,
    replace_default_protocol,
    replace_main_loop,
    status_lines,
    tick_rarely,
)

ROOT = Path(__file__).parents[2]
CALLED = (
    "connection_made", "connection_lost", "data_received", "resume_writing", "shutdown",
    "on_headers_complete", "on_body",
)  # fmt: skip
GONE = f"uvicorn {version('uvicorn')} has no {{}}, which serving/api/http/connection.py relies on"


def opened() -> UvicornConnection:
    """Returns a connection as uvicorn's server makes it, whose client has begun a request that uvicorn handles."""

    async def application(scope: object, receive: object, send: object) -> None:
        """An application that never answers."""

    class Wire(asyncio.Transport):
        def pause_reading(self) -> None:
            """Does nothing: there is nothing to read."""

        def is_closing(self) -> bool:
            return False

        def write(self, data: object) -> None:
            """Discards the data."""

        def close(self) -> None:
            """Does nothing."""

    async def make() -> UvicornConnection:
        config = uvicorn.Config(application, http=UvicornConnection, ws="none", lifespan="off", log_config=None)
        config.load()
        made = config.http_protocol_class(
            config=config, server_state=ServerState(), app_state={}, _loop=asyncio.get_running_loop()
        )
        made.connection_made(Wire())
        made.data_received(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await asyncio.gather(*made.tasks)
        return made

    return asyncio.run(make())


def lacking(thing: object, expected: type) -> list[str]:
    names = {*get_type_hints(expected), *(name for name in vars(expected) if inspect.isfunction(vars(expected)[name]))}
    own = {name for name in names if not name.startswith("__")}
    assert own, f"{expected.__name__} names what is relied on"
    return [GONE.format(f"`{type(thing).__name__}.{name}`") for name in sorted(own) if not hasattr(thing, name)]


@pytest.mark.parametrize(
    ("part", "expected"),
    [("", UvicornConnection), ("cycle", Cycle), ("flow", Flow), ("server_state", Shared), ("parser", Parser)],
)
def test_the_installed_uvicorn_has_every_attribute_that_is_relied_on(part: str, expected: type) -> None:
    connection = opened()
    assert not lacking(getattr(connection, part) if part else connection, expected)


def test_an_attribute_that_a_new_version_lacks_is_named() -> None:
    (missing,) = lacking(object(), Cycle)[:1]
    assert "has no `object.response_complete`, which serving/api/http/connection.py relies on" in missing


def test_uvicorn_calls_and_offers_the_methods_that_are_extended() -> None:
    own = UvicornConnection.__mro__[1]
    assert not [GONE.format(f"`{own.__name__}.{name}`") for name in CALLED if name not in vars(own)]
    arguments = list(inspect.signature(own).parameters)
    assert arguments == ["config", "server_state", "app_state", "_loop"], f"uvicorn makes connections with {arguments}"


def test_status_lines_are_bytes_with_their_end_and_include_those_of_faults() -> None:
    assert status_lines[200] == b"HTTP/1.1 200 OK\r\n"
    assert status_lines[507].startswith(b"HTTP/1.1 507 ")
    assert status_lines[499] == b"HTTP/1.1 499 \r\n", "a status without a name in Python's table"


def test_the_default_protocol_is_replaced_once_and_only_where_it_is_the_expected_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    protocols = uvicorn_parts.uvicorn.config.HTTP_PROTOCOLS
    assert protocols["auto"] == AUTO, f"uvicorn {version('uvicorn')} means another protocol by `auto`"
    monkeypatch.setitem(protocols, "auto", AUTO)
    assert replace_default_protocol("house:connection")
    assert protocols["auto"] == "house:connection"
    assert not replace_default_protocol("another:connection")
    assert protocols["auto"] == "house:connection"


def test_the_main_loop_is_replaced_by_one_that_ticks_rarely_and_only_where_it_is_the_expected_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = uvicorn.server.Server
    monkeypatch.setattr(server, "main_loop", server.main_loop)
    assert replace_main_loop(), f"uvicorn {version('uvicorn')} has another main loop"
    assert server.main_loop is tick_rarely
    assert replace_main_loop(), "it may be asked for again, by the next server of the process"

    async def another(server: object) -> None:
        """A main loop of a later uvicorn."""

    monkeypatch.setattr(server, "main_loop", another)
    assert not replace_main_loop()
    assert server.main_loop is another


def test_a_server_that_ticks_rarely_keeps_its_date_current_and_ends_when_it_is_told_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uvicorn_parts, "TICK_S", 0)
    server = uvicorn.Server(uvicorn.Config(lambda: None, log_config=None))

    async def story() -> None:
        ticking = asyncio.create_task(tick_rarely(server))
        for _ in range(2):
            server.server_state.default_headers = []
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert server.server_state.default_headers[0][0] == b"date"
        server.should_exit = True
        await ticking

    asyncio.run(story())


def test_the_version_has_an_upper_bound_and_the_installed_one_is_within_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (bound,) = [found for found in map(Requirement, project["dependencies"]) if found.name == "uvicorn"]
    assert any(one.operator in ("<", "==", "~=") for one in bound.specifier), "uvicorn's private parts are used"
    assert version("uvicorn") in bound.specifier
    pinned = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("uvicorn=="))
    assert pinned.partition("==")[2] in bound.specifier
