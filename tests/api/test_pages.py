"""Permissions of callers to read the front's pages."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from serving.api.admission.local_gate import LocalGate
from serving.api.admission.secret import key
from serving.api.entry import ModelEntry
from serving.api.http.front import FrontApp
from serving.api.operations import Operations
from serving.cluster.front.pages import admin_token

TOKEN = "a token of some length"
KEY = key("peer").decode()


def status(
    path: str, *, peer_header: str = "", header: str | None = None, client: str = "127.0.0.1", **headers: str
) -> int:
    async def page(query: str, sees: object) -> tuple[str, bytes]:
        return "text/plain", b"secret"

    async def models() -> list[ModelEntry]:
        return []

    shown = {"/debug/state": page, "/metrics": page}
    gate = LocalGate(peer_header=peer_header, peer_key=key("peer"), admin_token=TOKEN)
    app = FrontApp(Operations(models, gate=gate), pages=shown)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    sent_with = [(name.encode(), value.encode()) for name, value in headers.items()]
    if header is not None:
        sent_with.append((b"x-headway-peer", header.encode()))
    scope = {"type": "http", "method": "GET", "path": path, "headers": sent_with, "client": (client, 1)}
    asyncio.run(app(scope, receive, send))
    return int(sent[0]["status"])


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_debug_pages_are_for_the_machine_itself(peer: str) -> None:
    assert status("/debug/state", peer_header="x-headway-peer", header=f"{KEY}-{peer}") == 200
    assert status("/debug/state", client=peer) == 200


@pytest.mark.parametrize("peer", ["10.0.0.7", "", "localhost"])
def test_debug_pages_are_refused_to_other_machines(peer: str) -> None:
    assert status("/debug/state", peer_header="x-headway-peer", header=f"{KEY}-{peer}") == 403
    assert status("/debug/state", client=peer) == 403


def test_behind_a_load_balancer_a_caller_without_the_header_is_refused() -> None:
    assert status("/debug/state", peer_header="x-headway-peer", client="127.0.0.1") == 403


def test_a_header_without_the_key_is_ignored() -> None:
    assert status("/debug/state", peer_header="x-headway-peer", header="127.0.0.1", client="127.0.0.1") == 403


def test_without_a_load_balancer_the_header_is_ignored() -> None:
    for header in ("127.0.0.1", f"{KEY}-127.0.0.1"):
        assert status("/debug/state", header=header, client="10.0.0.7") == 403


def test_a_web_page_whose_name_leads_to_this_machine_reads_nothing() -> None:
    assert status("/debug/state", host="localhost:8000") == 200
    assert status("/debug/state", host="evil.example:8000") == 403
    assert status("/debug/state", host="localhost:8000", origin="http://evil.example") == 403
    assert status("/metrics", host="evil.example:8000") == 200


def test_other_pages_are_for_all_callers() -> None:
    assert status("/metrics", client="10.0.0.7") == 200


def test_the_admin_token_opens_them_from_elsewhere_and_nothing_like_it_does() -> None:
    assert status("/debug/state", client="10.0.0.7", authorization=f"Bearer {TOKEN}") == 200
    for wrong in (TOKEN, f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", "Bearer ", ""):
        assert status("/debug/state", client="10.0.0.7", authorization=wrong) == 403


def test_a_token_file_without_a_secret_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    assert admin_token(str(path)) == TOKEN
    assert admin_token(None) == ""
    path.write_text("\n")
    with pytest.raises(ValueError, match="holds no secret"):
        admin_token(str(path))
