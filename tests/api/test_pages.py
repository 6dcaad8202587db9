"""Pages of the front: who may read them."""

import asyncio
from typing import Any

import pytest

from serving.api.front import FrontApp
from serving.api.operations import Operations


def status(path: str, *, peer_header: str = "", header: str | None = None, client: str = "127.0.0.1") -> int:
    async def page(query: str) -> tuple[str, bytes]:
        return "text/plain", b"secret"

    async def models() -> list[dict[str, Any]]:
        return []

    app = FrontApp(Operations(models), pages={"/debug/state": page, "/metrics": page}, peer_header=peer_header)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    headers = [(b"x-headway-peer", header.encode())] if header is not None else []
    scope = {"type": "http", "method": "GET", "path": path, "headers": headers, "client": (client, 1)}
    asyncio.run(app(scope, receive, send))
    return int(sent[0]["status"])


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_debug_pages_are_for_the_machine_itself(peer: str) -> None:
    assert status("/debug/state", peer_header="x-headway-peer", header=peer) == 200
    assert status("/debug/state", client=peer) == 200


@pytest.mark.parametrize("peer", ["10.0.0.7", "", "localhost"])
def test_everybody_else_is_told_that_they_are_not(peer: str) -> None:
    assert status("/debug/state", peer_header="x-headway-peer", header=peer) == 403
    assert status("/debug/state", client=peer) == 403


def test_behind_a_load_balancer_its_silence_is_no_and_its_own_address_means_nothing() -> None:
    assert status("/debug/state", peer_header="x-headway-peer", client="127.0.0.1") == 403


def test_without_a_load_balancer_nobody_can_call_themselves_local() -> None:
    assert status("/debug/state", header="127.0.0.1", client="10.0.0.7") == 403


def test_other_pages_are_for_everybody() -> None:
    assert status("/metrics", client="10.0.0.7") == 200
