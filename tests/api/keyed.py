"""A server that asks for keys, for tests of its pages: the gate, two keys, and what a browser must never hold."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from serving.api.admission.local_gate import LocalGate
from serving.core.clock import Calendar
from serving.gateway.audit import Entry
from serving.gateway.callers import Callers
from serving.gateway.gate import KeyGate
from serving.gateway.key_log import KeyLog
from serving.gateway.key_text import NewKey
from serving.gateway.keys import Scope
from serving.testing.objects import MemoryObjects
from tests.gateway.stories import creation, fixed, revocation

T = TypeVar("T")
ADMIN, ACME, REVOKED = fixed(1), fixed(2), fixed(3)


def key_gate(
    sees: Callable[[str, str], bool] = lambda tenant, model: True, *, note: Callable[[Entry], None] | None = None
) -> KeyGate:
    """Returns a gate that knows a key of an administrator, one of tenant `acme`, and one that was revoked.

    sees: whether a tenant may see a model. note: takes entries for the audit."""
    store = MemoryObjects()
    records = (
        creation(ADMIN, "operations", [Scope.ADMIN, Scope.PREDICT]),
        creation(ACME, "acme"),
        creation(REVOKED, "acme"),
        revocation(REVOKED.id),
    )
    for number, record in enumerate(records, 1):
        store.objects[f"keys/log/{number:012}.json"] = record
    callers = Callers(KeyLog(store))
    beside(lambda: asyncio.run(callers.look(Calendar.now_ns())))
    return KeyGate(callers, local=LocalGate(), sees=sees, note=note)


def beside(work: Callable[[], T]) -> T:
    """Does something that blocks in a thread of its own: Playwright has an event loop in the test's."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(work).result()


@contextmanager
def opened(browser: Any, address: str, **more: Any) -> Iterator[Any]:
    """Yields a page of a new browser session at this address. An error in its scripts fails the test."""
    context = browser.new_context(**more)
    page = context.new_page()
    page.set_default_timeout(15_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if is_problem(said) else None)
    page.goto(address)
    yield page
    context.close()
    assert not problems


def is_problem(said: Any) -> bool:
    return said.type == "error" and "Failed to load resource" not in said.text  # a refusal is a status like others


def enter(page: Any, key: NewKey | str) -> None:
    """Types a key into the form that asks for one, and submits it with Enter."""
    page.fill("#key", key if isinstance(key, str) else key.text)
    page.press("#key", "Enter")
