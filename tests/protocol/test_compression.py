import contextlib
import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.protocol.compression import MAX_MEMBERS, coding_of, deflate, inflate, wanted_coding
from serving.protocol.errors import BadMessage, TooLarge, UnsupportedEncoding


@given(st.binary(max_size=2000), st.sampled_from(["gzip", "deflate"]))
def test_what_is_deflated_inflates_and_may_be_exactly_as_large_as_the_limit(data: bytes, coding: str) -> None:
    assert inflate(deflate(data, coding), coding, len(data)) == data
    if data:
        with pytest.raises(TooLarge):
            inflate(deflate(data, coding), coding, len(data) - 1)


def test_a_bomb_stops_at_the_limit() -> None:
    with pytest.raises(TooLarge, match="larger than 1000000 bytes"):
        inflate(gzip.compress(bytes(50_000_000)), "gzip", 1_000_000)


def test_several_gzip_members_are_one_body() -> None:
    assert inflate(gzip.compress(b"a") + gzip.compress(b"b"), "gzip", 10) == b"ab"


def test_members_that_hold_nothing_are_bounded_and_cost_no_more_than_their_bytes() -> None:
    empty = gzip.compress(b"")
    full = gzip.compress(b"a" * 5000)
    assert inflate(empty * (MAX_MEMBERS - 1) + full, "gzip", 5000) == b"a" * 5000
    with pytest.raises(BadMessage, match=f"more than {MAX_MEMBERS} members"):
        inflate(empty * 100_000, "gzip", 5000)


@given(st.lists(st.binary(max_size=3000), max_size=6), st.integers(0, 9))
def test_members_of_any_size_are_joined(contents: list[bytes], level: int) -> None:
    body = b"".join(gzip.compress(content, level) for content in contents) or gzip.compress(b"")
    assert inflate(memoryview(body), "gzip", 18_000) == b"".join(contents)


@given(st.binary(max_size=2000), st.integers(0, 9))
def test_deflate_without_its_zlib_wrapping_is_understood(data: bytes, level: int) -> None:
    packer = zlib.compressobj(level, wbits=-15)
    assert inflate(packer.compress(data) + packer.flush(), "deflate", 2000) == data


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1 << 16, (1 << 20) + 1])
def test_the_limit_is_exact_wherever_the_pieces_end(size: int) -> None:
    for body in (gzip.compress(bytes(size)), gzip.compress(bytes(size), 0)):
        assert inflate(body, "gzip", size) == bytes(size)
        if size:
            with pytest.raises(TooLarge):
                inflate(body, "gzip", size - 1)


@pytest.mark.parametrize(
    "damaged", [b"", b"nonsense", gzip.compress(b"abc", mtime=0)[:-3], gzip.compress(b"abc", mtime=0) + b"x"]
)
def test_damaged_gzip_is_a_bad_message(damaged: bytes) -> None:
    with pytest.raises(BadMessage):
        inflate(damaged, "gzip", 100)


@pytest.mark.parametrize("damaged", [b"", b"x", zlib.compress(b"abc")[:-1], zlib.compress(b"abc") + b"x"])
def test_damaged_deflate_is_a_bad_message(damaged: bytes) -> None:
    with pytest.raises(BadMessage):
        inflate(damaged, "deflate", 100)


@given(st.binary(max_size=100), st.sampled_from(["gzip", "deflate"]))
def test_arbitrary_bytes_raise_nothing_but_bad_message(data: bytes, coding: str) -> None:
    with contextlib.suppress(BadMessage):
        inflate(data, coding, 1000)


def test_only_codings_we_can_undo_are_taken() -> None:
    assert [coding_of(value) for value in ("", "identity", " GZIP", "deflate")] == ["", "", "gzip", "deflate"]
    with pytest.raises(UnsupportedEncoding):
        coding_of("gzip, gzip")


def test_answers_are_compressed_only_for_who_names_one_coding() -> None:
    assert wanted_coding("gzip") == "gzip"
    assert wanted_coding("deflate;q=0.5") == "deflate"
    for value in ("gzip, deflate", "", "*", "br", "gzip;q=0", "gzip; q=0.0"):
        assert wanted_coding(value) == ""
