"""Tests that the text of a key gets into nothing that outlives its request: logs, reprs, errors, audit, records."""

import asyncio
import logging
import traceback
from pathlib import Path

import pytest

from serving.api.admission.gate import Action
from serving.api.faults import CallFailed
from serving.gateway.audit import AuditLog, Entry
from serving.gateway.callers import Callers
from serving.gateway.key_log import KeyLog
from serving.gateway.rules import may
from serving.store.objects import open_store
from tests.gateway.stories import NOW_S, S, bearer, creation, fixed, revocation


def test_a_grep_for_the_keys_used_finds_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    good, unknown, ended = fixed(1), fixed(2), fixed(3)
    store = open_store(str(tmp_path / "state"))
    log = KeyLog(store)
    callers = Callers(log)
    audit = AuditLog(tmp_path / "audit", "replica")
    found: list[str] = []

    async def story() -> None:
        for record in (creation(good), creation(ended), revocation(ended.id)):
            await log.append(lambda keys, record=record: record)  # type: ignore[misc]
        await callers.look(NOW_S * S)
        (tmp_path / "state").rename(tmp_path / "gone")
        await callers.look(NOW_S * S)

    def serve() -> None:
        for key in (good, unknown, ended):
            for shown in (bearer(key), f"Basic {key.text}", bearer(key)[:-3], f"{bearer(key)} {key.text}"):
                try:
                    caller = callers.of(shown, "", NOW_S * S, lambda: "192.0.2.1")
                    may(caller, Action.DEBUG)
                except CallFailed as error:
                    found.extend((repr(error), repr(error.fault), *traceback.format_exception(error)))
                    result = str(error.fault.status)
                else:
                    result = "done"
                path = f"/v2/models/{key.text}?key={key.text[:30]}"
                audit.write([Entry(at_s=1, tenant="", key_id=key.id, action="read", object=path, result=result)])

    serve()
    asyncio.run(story())
    serve()
    found += [repr(callers), repr(callers.__dict__), repr(log), repr(log.__dict__), repr(store), caplog.text]
    found += [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(found) > 50
    for key in (good, unknown, ended):
        secret = key.text.split("_")[2]
        for text in found:
            assert not any(secret[at : at + 12] in text for at in range(0, 31, 6)), text[:200]
            assert key.digest.hex() not in text or '"kind":"created"' in text
