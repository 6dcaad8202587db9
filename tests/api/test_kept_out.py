"""Tests how a replica counts the requests that HAProxy has refused in its place."""

from serving.api.admission.kept_out import MOST_PROCESSES, KeptOut


def test_what_a_process_has_refused_before_it_was_first_heard_is_not_counted() -> None:
    kept_out = KeptOut()
    assert [kept_out.heard(b"a-1 %d 1" % total) for total in (40, 45, 45, 60)] == [0, 5, 0, 15]


def test_processes_are_counted_apart() -> None:
    kept_out = KeptOut()
    told = (b"a-1 0 1", b"b-1 7 1", b"a-1 3 1", b"b-1 9 1", b"a-2 0 1", b"a-2 4 1")
    assert [kept_out.heard(value) for value in told] == [0, 0, 3, 2, 0, 4]


def test_refusals_are_divided_among_the_replicas_and_none_is_lost() -> None:
    kept_out = KeptOut()
    counted = [kept_out.heard(b"a-1 %d 3" % total) for total in range(0, 31)]
    assert sum(counted) == 10


def test_anything_else_counts_for_nothing() -> None:
    kept_out = KeptOut()
    for value in (b"", b"a", b"a 1", b"a 1 x", b"a -1 1", b"a 1 0 0"):
        assert kept_out.heard(value) == 0
    assert [kept_out.heard(b"a 1 0"), kept_out.heard(b"a 3 0")] == [0, 2]


def test_processes_that_are_gone_are_forgotten() -> None:
    kept_out = KeptOut()
    for number in range(3 * MOST_PROCESSES):
        kept_out.heard(b"a-%d 1 1" % number)
    assert len(kept_out._known) <= MOST_PROCESSES
