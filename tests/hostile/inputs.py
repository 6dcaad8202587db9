"""What a hostile input is: a name, a kind, what is sent, and which answers to it are right.

An answer is a word: the status of HTTP ("400"), the name of gRPC's ("INVALID_ARGUMENT"), or what became of a connection
("closed", "goaway", "served"). An error that does not say what is wrong is another word ("500 unexplained"), which no
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
    """what: see above. text: what it says to a person."""

    what: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Doors:
    """Where a server listens. http, grpc: where clients knock; direct_http and fast: replicas' own doors, by model."""

    http: Address
    grpc: Address
    direct_http: dict[str, Address]
    fast: dict[str, Address]


Send = Callable[[Doors], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Hostile:
    """send: sends it once and waits for what comes; bounded by itself, or by the runner's patience."""

    name: str
    kind: str
    send: Send
    right: frozenset[str]


def always(made: T) -> Callable[[], T]:
    """A function that returns this value."""
    return lambda: made


def words(*allowed: str | Iterable[str]) -> frozenset[str]:
    """One set of what several name."""
    return frozenset().union(*({one} if isinstance(one, str) else one for one in allowed))


def seeded(name: str) -> random.Random:
    """The same numbers for the same input, always."""
    return random.Random(f"headway {name}")
