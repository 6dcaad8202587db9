"""The audit page, in a real browser."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.api.admission.gate import Action, Peer
from serving.api.admission.local_gate import LocalGate
from serving.api.entry import ModelEntry
from serving.api.faults import CallFailed
from serving.api.http.front import FrontApp
from serving.api.operations import Operations
from serving.cluster.front import audit
from serving.cluster.front.audit import audit_pages
from serving.gateway.audit import AuditLog, Entry, audit_folder
from tests.api.conftest import Server
from tests.api.keyed import ACME, ADMIN, beside, enter, key_gate, opened
from tests.gateway.stories import NOW_S, bearer


def entry(at_s: float, **more: str) -> Entry:
    fields = {"tenant": "acme", "key_id": "k1", "action": "load", "object": "scorer", "result": "allowed"}
    return Entry(at_s=at_s, **{**fields, **more})


class Log:
    """The audit of a replica in this folder."""

    def __init__(self, folder: Path) -> None:
        self._log = AuditLog(folder, "replica")

    def write(self, entries: Iterable[Entry]) -> None:
        beside(lambda: self._log.write(entries))


@contextmanager
def served(state: str, gate: Any = None) -> Iterator[str]:
    async def entries() -> list[ModelEntry]:
        return []

    app = FrontApp(Operations(entries, gate=gate or key_gate()), pages=audit_pages(state, name="shop"))
    server = Server(app, http="httptools", loop="asyncio").open()
    yield f"http://{server.address}"
    server.close()


@pytest.fixture
def log(tmp_path: Path) -> Log:
    folder = audit_folder(str(tmp_path))
    assert folder is not None
    return Log(folder)


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Iterator[Any]:
    with served(str(tmp_path)) as address, opened(browser, f"{address}/audit") as page:
        yield page


def shown(page: Any, column: str) -> list[str]:
    return list(page.locator(f"tbody td[data-name={column}]").all_inner_texts())


def test_it_lists_who_changed_what_and_who_was_refused_the_newest_first(page: Any, log: Log) -> None:
    log.write([
        entry(NOW_S, tenant="acme", key_id="root@host", action="create key", object="k7", result="done"),
        entry(NOW_S + 60, address="10.0.0.7"),
        entry(NOW_S + 120, tenant="beta", key_id="k2", action="unload", result="refused: 403", address="10.0.0.8"),
    ])  # fmt: skip
    enter(page, ADMIN)
    page.wait_for_selector("tbody tr")
    assert shown(page, "Action") == ["unload", "load", "create key"]
    assert shown(page, "Who") == ["k2", "k1", "root@host"]
    assert shown(page, "Result") == ["refused: 403", "allowed", "done"]
    assert shown(page, "From") == ["10.0.0.8", "10.0.0.7", "the server's machine"]
    assert page.locator("tbody .bad").all_inner_texts() == ["refused: 403"]
    assert page.inner_text("#count") == "3 entries"
    assert page.inner_text("#server") == "shop"


def test_it_is_filtered_by_tenant_and_action(page: Any, log: Log) -> None:
    log.write([entry(NOW_S + number, tenant=tenant, action=action) for number, (tenant, action) in enumerate(
        [("acme", "load"), ("acme", "log"), ("beta", "load"), ("", "trace")])])  # fmt: skip
    enter(page, ADMIN)
    page.wait_for_selector("tbody tr")
    page.get_by_label("Tenant").select_option(label="acme")
    assert shown(page, "Action") == ["log", "load"]
    page.get_by_label("Action").select_option("load")
    assert page.inner_text("#count") == "1 of 4 entries"
    page.get_by_label("Action").select_option("trace")
    page.get_by_text("No entry has both").wait_for()
    page.get_by_label("Tenant").select_option(label="none")
    assert shown(page, "Action") == ["trace"]
    log.write([entry(NOW_S + 90, tenant="", action="trace", object="other")])
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.get_by_text("2 of 5 entries").wait_for()  # what is chosen stays so when new entries come


def test_an_empty_audit_says_what_would_appear(page: Any) -> None:
    enter(page, ADMIN)
    page.get_by_text("Nothing has been changed yet.").wait_for()
    assert "loaded or unloaded a model" in page.inner_text(".empty")
    assert page.is_hidden("#filters")


def test_a_state_in_a_bucket_has_no_audit_and_the_page_says_so(browser: Any) -> None:
    with served("s3://bucket/state") as address, opened(browser, f"{address}/audit") as page:
        enter(page, ADMIN)
        page.get_by_text("its state is in a bucket").wait_for()


def test_a_server_that_asks_nobody_for_a_key_has_no_audit_and_the_page_says_so(browser: Any) -> None:
    with served("", LocalGate()) as address, opened(browser, f"{address}/audit") as page:
        page.get_by_text("This server keeps no audit, because it asks nobody for a key").wait_for()


def test_a_key_without_the_scope_is_told_which_one_it_lacks(page: Any) -> None:
    enter(page, ACME)
    page.get_by_text("it lacks the scope `admin`").wait_for()
    assert page.is_hidden("#shown")


def test_what_a_client_chose_is_shown_as_text(page: Any, log: Log) -> None:
    log.write([entry(NOW_S, object="<img src=x onerror=alert(1)>", result="refused: 404")])
    enter(page, ADMIN)
    page.wait_for_selector("tbody tr")
    assert shown(page, "What") == ["<img src=x onerror=alert(1)>"]
    assert page.locator("main img").count() == 0


def test_a_refused_load_is_in_the_audit_with_the_tenant_and_the_id_of_the_key(tmp_path: Path, log: Log) -> None:
    gate = key_gate(note=lambda one: log.write([one]))
    peer = Peer(lambda name: bearer(ACME) if name == "authorization" else "", "10.0.0.9")
    with pytest.raises(CallFailed):
        gate.check(peer, Action.LOAD, "m")
    with served(str(tmp_path), gate) as address:
        told = httpx.get(f"{address}/audit/data", headers={"authorization": bearer(ADMIN)}).json()
    (only,) = told["entries"]
    assert (only["tenant"], only["key_id"], only["action"], only["result"]) == ("acme", ACME.id, "load", "refused: 403")


def test_only_the_latest_entries_are_sent(tmp_path: Path, log: Log) -> None:
    log.write(entry(NOW_S + number) for number in range(audit.MOST_ENTRIES + 10))
    with served(str(tmp_path)) as address:
        told = httpx.get(f"{address}/audit/data", headers={"authorization": bearer(ADMIN)}).json()
    assert len(told["entries"]) == told["most"] == audit.MOST_ENTRIES
    assert told["entries"][0]["at_s"] == NOW_S + audit.MOST_ENTRIES + 9


@pytest.mark.parametrize("width", [320, 390, 768])
def test_nothing_sticks_out_on_a_narrow_screen(page: Any, log: Log, width: int) -> None:
    log.write([entry(NOW_S, object="a-model-with-a-very-long-name" * 5, tenant="a" * 64, result="refused: 403")])
    enter(page, ADMIN)
    page.wait_for_selector("tbody tr")
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
