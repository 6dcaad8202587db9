"""Tests that the fast door answers HAProxy's health checks by the engine's state, not by Ray's."""

import asyncio
from typing import Any

import pytest

from serving.cluster.replica.http_door import HEALTHZ, FastDoor, keep_no_count


async def answer(door: FastDoor, path: str) -> int:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await door({"type": "http", "path": path, "method": "GET", "headers": []}, None, send)
    return int(sent[0]["status"])


@pytest.mark.parametrize("prefix", ["/v2/models/m", ""])
@pytest.mark.parametrize("well", [True, False])
def test_a_replica_is_in_rotation_as_long_as_it_takes_requests(prefix: str, well: bool) -> None:
    def says(status: int) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": status, "headers": []})

        return app

    door = FastDoor(says(503), own=says(201), path=prefix, takes_requests=lambda: well, kept_out=keep_no_count)
    assert asyncio.run(answer(door, HEALTHZ)) == (200 if well else 503)
    assert asyncio.run(answer(door, "/-/routes")) == 503
    assert asyncio.run(answer(door, f"{prefix}/ready")) == 201
