"""The text of an API key: `hw_<id>_<secret>_<checksum>`. Made once, recognised, and kept out of everything written.

Pure: no store, no clock. Of the text only the SHA-256 of its secret is kept: a secret of 256 random bits cannot be
guessed, so a slow hash would add nothing. The text itself is in `NewKey` only, which does not show it.
"""

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple

ID_CHARACTERS, SECRET_BYTES, SECRET_CHARACTERS, SUM_CHARACTERS = 12, 32, 43, 6
ID = re.compile(rf"[0-9A-Za-z]{{{ID_CHARACTERS}}}")
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_KEY = re.compile(
    rb"(hw_([0-9A-Za-z]{%d})_([0-9A-Za-z]{%d}))_([0-9A-Za-z]{%d})" % (ID_CHARACTERS, SECRET_CHARACTERS, SUM_CHARACTERS)
)
# Stands for a text that is no key, so that it takes the same steps. Its checksum is wrong.
_NO_KEY = b"_".join([b"hw", *(b"0" * count for count in (ID_CHARACTERS, SECRET_CHARACTERS, SUM_CHARACTERS))])
_LIKE_A_KEY = re.compile(r"(hw_[0-9A-Za-z]{1,12})_[0-9A-Za-z_]{8,}")
_LIKE_A_TOKEN = re.compile(r"eyJ[\w-]{8,}\.[\w-]+\.[\w-]*")
Random = Callable[[int], bytes]  # bytes nobody can guess: `secrets.token_bytes`


class Presented(NamedTuple):
    """A credential as a client sent it: the id in it, "" if it is no key, and the SHA-256 of its secret."""

    id: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made. `text` is to be shown once and kept nowhere; the repr does not contain it."""

    id: str
    text: str = field(repr=False)
    digest: bytes = field(repr=False)


def make_key(random: Random) -> NewKey:
    """Returns a new key: `hw_<id>_<secret>_<checksum>`. The checksum lets scanners find leaked keys without asking."""
    id = _base62(int.from_bytes(random(ID_CHARACTERS)), ID_CHARACTERS)
    secret = _base62(int.from_bytes(random(SECRET_BYTES)), SECRET_CHARACTERS)
    body = f"hw_{id}_{secret}"
    return NewKey(id, f"{body}_{_checksum(body.encode())}", sha256(secret.encode()).digest())


def presented(text: bytes) -> Presented:
    """Returns the id and the digest of a credential. Whatever was sent, the work is about the same."""
    match = _KEY.fullmatch(text) or _KEY.fullmatch(_NO_KEY)
    assert match is not None
    body, id, secret, checksum = match.groups()
    is_whole = _checksum(body).encode() == checksum
    return Presented(id.decode() * is_whole, sha256(secret).digest())


def id_of(text: str) -> str:
    """Returns the id that a person named: the id itself, or that of a whole key. "" if it is neither."""
    return text if ID.fullmatch(text) else presented(text.encode()).id


def scrubbed(text: str) -> str:
    """Returns the text without secrets of keys and tokens, for logs and records of what clients sent."""
    return _LIKE_A_TOKEN.sub("eyJ...", _LIKE_A_KEY.sub(r"\1_...", text))


def _base62(number: int, characters: int) -> str:
    """Returns the last digits of the number in base 62, padded with zeros."""
    text = ""
    for _ in range(characters):
        number, digit = divmod(number, 62)
        text = _BASE62[digit] + text
    return text


def _checksum(body: bytes) -> str:
    return _base62(zlib.crc32(body), SUM_CHARACTERS)
