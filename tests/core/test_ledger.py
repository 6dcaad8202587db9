"""Tests the invariant of the ledger."""

import pytest

from serving.core.fairness import MAX_TENANTS_REMEMBERED, FairShares
from serving.core.ledger import Ledger
from serving.core.outcome import Cancelled, Expired, Reason, Rejected


def test_a_request_is_counted_in_one_place_at_a_time() -> None:
    ledger = Ledger()
    for _ in range(3):
        ledger.receive()
    ledger.refuse(Rejected(Reason.QUEUE_FULL, 0))
    ledger.depart(1)
    ledger.end_queued(Expired(5))
    ledger.check()
    ledger.end_in_flight(Cancelled())
    ledger.check()
    snapshot = ledger.snapshot()
    assert (snapshot.received, snapshot.queued, snapshot.in_flight) == (4, 1, 0)
    assert snapshot.ended == {"Rejected": 1, "Expired": 1, "Cancelled": 1}
    assert not ledger.is_empty()


def test_a_request_answered_twice_is_noticed() -> None:
    ledger = Ledger()
    ledger.receive()
    ledger.end_queued(Cancelled())
    ledger.end_queued(Cancelled())
    with pytest.raises(AssertionError, match="answered twice"):
        ledger.check()


def test_the_number_of_remembered_tenants_is_bounded() -> None:
    shares = FairShares()
    for number in range(2 * MAX_TENANTS_REMEMBERED):
        shares.activate(f"tenant-{number}", active=[], now_ns=number)
    assert len(shares._served_ns) == MAX_TENANTS_REMEMBERED
