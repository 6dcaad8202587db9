"""Tests how values of clients find the version that answered, and that each counts once."""

from serving.traffic.evidence import Counted, Reading
from serving.traffic.feedback import MOST, TRIES, Desk, Feedback, Report

NOTHING = Reading("r", 0.0, Counted())


def sent(*given: Feedback) -> Report:
    return Report(NOTHING, given)


def answering(*indices: int) -> Report:
    return Report(NOTHING, (), indices)


GOOD, BAD = Feedback("acme", "a", 1.0), Feedback("globex", "b", 0.0)


def test_a_value_counts_for_the_version_that_answered() -> None:
    desk = Desk()
    assert desk.joined(desk.asked(), [[sent(GOOD)], [sent(BAD)]]) == [[], []]
    asked = desk.asked()
    assert asked == [("acme", "a"), ("globex", "b")]
    assert desk.joined(asked, [[answering(1)], [answering(), answering(0)]]) == [[0.0], [1.0]]
    assert desk.asked() == []


def test_a_replica_that_is_late_is_asked_again_but_not_for_ever() -> None:
    desk = Desk()
    desk.joined([], [[sent(GOOD)], []])
    for _ in range(TRIES - 1):
        assert desk.joined(desk.asked(), [[answering()], []]) == [[], []]
    assert desk.joined(desk.asked(), [[answering(0)], []]) == [[1.0], []]
    desk.joined([], [[sent(GOOD)], []])
    for _ in range(TRIES):
        desk.joined(desk.asked(), [[], []])
    assert desk.asked() == []


def test_a_request_that_two_replicas_claim_counts_for_none() -> None:
    desk = Desk()
    desk.joined([], [[sent(GOOD)], []])
    assert desk.joined(desk.asked(), [[answering(0)], [answering(0)]]) == [[], []]
    assert desk.asked() == []


def test_a_value_that_is_sent_again_while_it_waits_counts_once() -> None:
    desk = Desk()
    desk.joined([], [[sent(GOOD, GOOD._replace(value=0.5))], [sent(GOOD)]])
    assert desk.joined(desk.asked(), [[answering(0)], []]) == [[1.0], []]


def test_the_same_id_of_another_tenant_is_another_request() -> None:
    desk = Desk()
    desk.joined([], [[sent(GOOD, GOOD._replace(tenant="globex"))], []])
    assert desk.asked() == [("acme", "a"), ("globex", "a")]


def test_a_flood_of_values_is_bounded() -> None:
    desk = Desk()
    desk.joined([], [[sent(*(Feedback("acme", str(number), 1.0) for number in range(MOST + 5)))], []])
    assert len(desk.asked()) == MOST
