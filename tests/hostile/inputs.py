"""A hostile input: a name, a kind, the function that sends it, and the right answers to it.

An answer is a word: an HTTP status ("400"), the name of a gRPC status ("INVALID_ARGUMENT"), or the end of a connection
("closed", "goaway", "served"). An error without an explanation is another word ("500 unexplained"), which no
input expects.
"""

import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
MIB = 1 << 20
Address = tuple[str, int]

REFUSED = frozenset({"400", "413"})
REFUSED_HEAD = frozenset({"400", "400 bare", "431", "closed"})
ENDED = frozenset({"goaway", "closed"})


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and its text. what: the answer as a word, see above. text: its message, for people."""

    what: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Doors:
    """The addresses of a server. http, grpc: for clients; direct_http and fast: replicas' own doors, by model."""

    http: Address
    grpc: Address
    direct_http: dict[str, Address]
    fast: dict[str, Address]


Send = Callable[[Doors], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Hostile:
    """One hostile input. send: sends it once and waits for the answer; bounded by itself, or by the runner's
    patience."""

    name: str
    kind: str
    send: Send
    right: frozenset[str]


def always(made: T) -> Callable[[], T]:
    """Returns a function that returns this value."""
    return lambda: made


def words(*allowed: str | Iterable[str]) -> frozenset[str]:
    """Returns the union of these words and sets of words."""
    return frozenset().union(*({one} if isinstance(one, str) else one for one in allowed))


def seeded(name: str) -> random.Random:
    """Returns random numbers that are always the same for the same input."""
    return random.Random(f"headway {name}")
