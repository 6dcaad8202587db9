"""The age of a request, from the stamp that HAProxy adds at the end of its head."""

import numpy as np

from serving.api.admission.age import HEADER, HERE, Stamps, machine
from serving.core.clock import Calendar
from serving.protocol.http2 import header_block
from serving.testing.clock import ManualClock
from tests.api.test_connection import REQUESTS, Talk, infer, talk

KEY = b"0123456789abcdef"
OTHER = "fedcba9876543210"
NOW_US = 1_800_000_000_000_000
HEAD = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h"


def stamps() -> Stamps:
    return Stamps(KEY, ManualClock(NOW_US * 1000))


def stamped(value: str, head: bytes = HEAD) -> bytes:
    return head + b"\r\n" + HEADER + b": " + value.encode()


def test_the_stamp_at_the_end_of_a_head_is_taken_off_and_tells_its_age() -> None:
    assert stamps().split(stamped(f"0123456789abcdef-{NOW_US - 3000}")) == (HEAD, 3_000_000)
    assert stamps().age_ns(f"0123456789abcdef-{NOW_US - 3000}".encode()) == 3_000_000


def test_a_stamp_of_another_machine_is_taken_off_and_counts_for_nothing() -> None:
    assert stamps().split(stamped(f"{OTHER}-{NOW_US - 3000}")) == (HEAD, 0)


def test_what_is_no_stamp_stays_and_counts_for_nothing() -> None:
    for head in (
        HEAD,
        b"",
        stamped("0123456789abcdef-"),
        stamped(f"0123456789abcdef-{NOW_US - 3000}") + b"\r\nMore: 1",
    ):
        assert stamps().split(head) == (head, 0)
    for value in (
        b"",
        b"0123456789abcdef",
        b"0123456789abcdef-",
        b"0123456789abcdef-12x",
        f"{OTHER}-{NOW_US}".encode(),
    ):
        assert stamps().age_ns(value) == 0


def test_a_stamp_that_is_no_number_or_lies_ahead_is_age_0() -> None:
    assert stamps().split(stamped("0123456789abcdef-123456789012345x")) == (HEAD, 0)
    assert stamps().split(stamped(f"0123456789abcdef-{NOW_US + 3000}")) == (HEAD, 0)


def test_a_stamp_of_any_machine_is_removed_from_a_header_block() -> None:
    block = b"\x83\x86" + header_block([(b"application", b"m")])
    for value, age_ns in {
        f"0123456789abcdef-{NOW_US - 3000}": 3_000_000,
        f"{OTHER}-{NOW_US - 3000}": 0,
        f"0123456789abcdef-{NOW_US + 3000}": 0,
        "0123456789abcdef-123456789012345x": 0,
    }.items():
        assert stamps().split_block(block + header_block([(HEADER, value.encode())])) == (block, age_ns)


def test_a_header_block_that_does_not_end_with_a_stamp_stays_as_it_is() -> None:
    stamp = header_block([(HEADER, f"0123456789abcdef-{NOW_US}".encode())])
    short = header_block([(HEADER, f"0123456789abcdef-{NOW_US}"[1:].encode())])
    indexed = b"\x40" + stamp[1:]  # asks for an entry in the table
    for block in (b"", stamp[1:], stamp + b"\x82", short, indexed, header_block([(HEADER + b"s", b"1")])):
        assert stamps().split_block(block) == (block, 0)


def test_on_both_ways_a_request_is_as_old_as_its_stamp_says() -> None:
    began_us = Calendar.now_ns() // 1000 - 250_000
    stamp = f"{HEADER.decode()}: {machine().decode()}-{began_us}"
    general = infer(REQUESTS["plain"].partition(b"\r\n\r\n")[2], "Content-Encoding: identity", stamp)

    async def story(talk: Talk, backend) -> None:  # type: ignore[no-untyped-def]
        await talk.send(stamped_request(stamp))
        await talk.answers(1)
        await talk.send(general)
        assert [status for status, _ in await talk.answers(2)] == [200, 200]
        ages = [submission.age_ns for submission in backend.submissions]
        assert len(ages) == 2
        assert all(age >= 250_000_000 for age in ages)
        assert np.array_equal(backend.submissions[0].payload["x"], backend.submissions[1].payload["x"])

    talk(story)


def stamped_request(stamp: str) -> bytes:
    head, _, body = infer().partition(b"\r\n\r\n")
    assert HERE.split(head + b"\r\n" + stamp.encode())[0] == head
    return head + b"\r\n" + stamp.encode() + b"\r\n\r\n" + body
