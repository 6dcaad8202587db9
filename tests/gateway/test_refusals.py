"""Tests which refusals are in the audit, and that no flood of them fills it."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.gateway.audit import AuditLog, Entry, latest, refused_folder
from serving.gateway.refusals import MOST_KINDS, OTHERS, WINDOW_S, Refusals
from tests.gateway.grpc_calls import calling, infer
from tests.gateway.stories import NOW_S, S
from tests.gateway.tenancy import CREDENTIALS, OTHER_SCOPE, OURS, USED_TEXTS, tenancy
from tests.gateway.test_quota_wires import INFER


def refusal(at_s: float = 0.0, address: str = "192.0.2.1", result: str = "refused: 401", **more: str) -> Entry:
    values = {"tenant": "", "key_id": "", "action": "predict", "object": ""} | more
    return Entry(at_s=at_s, address=address, result=result, **values)


def counted(entries: Iterable[Entry]) -> Counter[str]:
    """Returns how many refusals these entries tell of, by address and result."""
    told: Counter[str] = Counter()
    for entry in entries:
        status, _, more = entry.result.partition(", ")
        told[f"{entry.address} {status}"] += int(more.partition(" ")[0]) if more else 1
    return told


def test_the_first_refusal_is_written_at_once_and_the_rest_of_its_minute_as_a_count() -> None:
    refusals = Refusals()
    assert refusals.note(refusal(0)) == refusal(0)
    assert [refusals.note(refusal(at)) for at in range(1, 10)] == [None] * 9
    assert refusals.note(refusal(9, "192.0.2.2")) is not None
    assert refusals.due(59.9) == []
    assert refusals.due(60) == [refusal(60, result="refused: 401, 9 more times")]
    assert refusals.note(refusal(61)) is None  # the flood goes on: counted only
    assert refusals.due(120) == [refusal(120, result="refused: 401, 1 more times")]
    assert refusals.due(180) == []
    assert refusals.note(refusal(181)) == refusal(181)


def test_many_kinds_are_counted_together() -> None:
    refusals = Refusals()
    written = [refusals.note(refusal(0, str(number))) for number in range(1000)]
    assert sum(entry is not None for entry in written) == MOST_KINDS + 1
    (together,) = refusals.due(60)
    assert (together.address, together.result) == (OTHERS, f"refused: 401, {1000 - MOST_KINDS - 1} more times")


@given(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from("abcdef"), st.sampled_from(["401", "403"])), max_size=300)
)
def test_every_refusal_is_counted_once_and_a_kind_has_at_most_two_entries_a_minute(
    steps: list[tuple[int, str, str]],
) -> None:
    refusals, written, at_s = Refusals(), [], 0
    for pause_s, address, status in steps:
        at_s += pause_s
        written += refusals.due(at_s)
        if (first := refusals.note(refusal(at_s, address, status))) is not None:
            written.append(first)
    written += refusals.due(at_s + WINDOW_S)
    assert counted(written) == Counter(f"{address} {status}" for _, address, status in steps)
    windows = Counter((entry.address, entry.result[:3], entry.at_s // WINDOW_S) for entry in written)
    assert max(windows.values(), default=0) <= 2


def test_after_the_clock_was_set_back_what_was_counted_is_written() -> None:
    refusals = Refusals()
    for at_s in (1000, 1001):
        refusals.note(refusal(at_s))
    assert [entry.result for entry in refusals.due(0)] == ["refused: 401, 1 more times"]


@pytest.mark.parametrize("coding", ["identity", "gzip"])  # the fast path, and the general one
def test_refused_requests_are_in_the_audit_with_their_count_and_without_their_credentials(coding: str) -> None:
    asked = {"no key": 4, "a revoked key": 3, "another scope": 2, "other tenant": 5, "own tenant": 6}
    with tenancy() as running:
        url = f"http://{running.served.http}/v2/models/{OURS}/infer"
        with httpx.Client(headers={"accept-encoding": coding}) as client, calling(running.served.grpc) as caller:
            for who, times in asked.items():
                for _ in range(times):
                    client.post(url, content=b"{}", headers=CREDENTIALS[who])
                    caller.call(INFER, infer(OURS), list(CREDENTIALS[who].items()))
        assert len(running.audit) <= 4
        running.clock.advance(WINDOW_S * S)
        running.gate.tell()
    assert counted(running.audit) == {"unknown refused: 401": 2 * (4 + 3), "unknown refused: 403": 2 * 2}
    assert {(entry.tenant, entry.key_id) for entry in running.audit} == {("", ""), ("acme", OTHER_SCOPE.id)}
    assert not any(text in str(running.audit) for text in USED_TEXTS)


def test_however_many_refusals_there_are_no_change_is_pushed_out(tmp_path: Path) -> None:
    changes = AuditLog(tmp_path, "front", most_bytes=8000)
    refusals = AuditLog(refused_folder(tmp_path), "front", most_bytes=8000)
    change = refusal(NOW_S, result="allowed", action="load")
    changes.write([change])
    for at in range(500):
        refusals.write([refusal(NOW_S + at)])
    assert sum(path.stat().st_size for path in refused_folder(tmp_path).iterdir()) <= 8000
    assert changes.last(10) == [change]
    assert latest(tmp_path, 1) == [refusal(NOW_S + 499)]
    assert latest(tmp_path, 1000)[-1] == change
