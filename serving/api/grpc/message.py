"""Reads and writes the prefix of a gRPC message: 1 byte compressed flag, 4 bytes length (big-endian). Pure."""

from struct import Struct

from serving.api.faults import CallFailed, Fault
from serving.protocol.compression import coding_of
from serving.protocol.errors import UnsupportedEncoding

_PREFIX = Struct(">BI")
PREFIX_BYTES = _PREFIX.size
ONE_MESSAGE = Fault(501, "this call takes one message, and more bytes follow it")
CUT_OFF = Fault(400, "the call ends in the middle of a message")
CODINGS = (b"grpc-accept-encoding", b"identity,deflate,gzip")


def prefix(message: bytes) -> bytes:
    return _PREFIX.pack(0, len(message))


def message_size(received: bytes | bytearray, max_bytes: int) -> int | None:
    """Returns the length in bytes of the message that begins here, with its prefix; None if the prefix is incomplete.
    Raises CallFailed (413) if the message is larger than `max_bytes`."""
    if len(received) < PREFIX_BYTES:
        return None
    _, size = _PREFIX.unpack_from(received)
    if size > max_bytes:
        raise CallFailed(Fault(413, f"the message is larger than {max_bytes} bytes, the limit of this server"))
    length: int = PREFIX_BYTES + size
    return length


def message_coding(flag: int, encoding: str) -> str:
    """Returns the coding of a compressed message. flag: of its prefix, not 0. encoding: the call's grpc-encoding.
    Raises CallFailed with the status that gRPC's specification of compression names."""
    try:
        coding = coding_of(encoding)
    except UnsupportedEncoding:
        text = f"grpc-encoding {encoding[:40]!r} is not supported: use gzip or deflate"
        raise CallFailed(Fault(415, text, (CODINGS,))) from None
    if flag != 1 or not coding:
        text = f"a message is marked as compressed ({flag}), and grpc-encoding is {encoding[:40]!r}"
        raise CallFailed(Fault(500, text))
    return coding
