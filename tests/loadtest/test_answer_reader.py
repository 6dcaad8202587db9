"""Parsing HTTP answers from bytes in any pieces."""

import pytest

from loadtest.wires import Address
from loadtest.wires.answer import Answer, AnswerReader, BadAnswer

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
ANNOUNCED = b"HTTP/1.1 100 Continue\r\n\r\n" + LENGTH


@pytest.mark.parametrize(
    ("data", "body"), [(LENGTH, b"hello"), (CHUNKS, b"hello"), (EMPTY, b""), (ANNOUNCED, b"hello")]
)
def test_an_answer_is_whole_with_its_last_byte_and_not_before(data: bytes, body: bytes) -> None:
    reader = AnswerReader()
    answers = [reader.feed(data[position : position + 1]) for position in range(len(data))]
    assert answers[:-1] == [None] * (len(data) - 1)
    assert isinstance(answers[-1], Answer)
    assert (answers[-1].body, answers[-1].keeps) == (body, True)


@pytest.mark.parametrize("data", [LENGTH, CHUNKS, EMPTY, ANNOUNCED])
def test_an_answer_may_come_in_one_piece(data: bytes) -> None:
    assert AnswerReader().feed(data) is not None


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_connection_that_ends_after_the_answer_is_not_kept(head: bytes) -> None:
    answer = AnswerReader().feed(head)
    assert answer is not None
    assert not answer.keeps


def test_a_connection_that_said_more_than_the_answer_is_not_kept() -> None:
    answer = AnswerReader().feed(LENGTH + b"HTTP/1.1")
    assert answer is not None
    assert (answer.body, answer.keeps) == (b"hello", False)


def test_without_a_length_the_end_of_the_connection_ends_the_answer() -> None:
    reader = AnswerReader()
    assert reader.feed(b"HTTP/1.1 200 OK\r\n\r\nhel") is None
    assert reader.feed(b"lo") is None
    answer = reader.end()
    assert answer is not None
    assert (answer.body, answer.keeps) == (b"hello", False)


@pytest.mark.parametrize("data", [b"", LENGTH[:-1], CHUNKS[:-3], b"HTTP/1.1 200"])
def test_an_end_in_the_middle_is_no_answer(data: bytes) -> None:
    reader = AnswerReader()
    reader.feed(data)
    assert reader.end() is None


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-Server\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"x" * 70_000,
    ],
)
def test_bytes_that_are_no_answer_are_refused(data: bytes) -> None:
    with pytest.raises(BadAnswer):
        AnswerReader().feed(data)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://there:8000/v2/models/mlp", Address("there", 8000, "/v2/models/mlp", "mlp")),
        ("http://there:8000/v2/models/mlp/infer", Address("there", 8000, "/v2/models/mlp/infer", "mlp")),
        ("http://there/x?y=1", Address("there", 80, "/x?y=1", "")),
        ("grpc://[::1]", Address("::1", 8001, "/", "")),
    ],
)
def test_an_address_knows_host_port_and_model(url: str, address: Address) -> None:
    assert Address.parse(url) == address


def test_an_ipv6_host_is_written_in_brackets() -> None:
    assert Address.parse("http://[::1]:8000").authority == "[::1]:8000"


@pytest.mark.parametrize("url", ["there:8000/x", "https://there/x", "/v2", "http://there:99999/"])
def test_an_address_that_is_no_plain_http_or_grpc_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url: "):
        Address.parse(url)
