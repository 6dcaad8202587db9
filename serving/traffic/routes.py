"""The routing table: which version of a model answers a request, and the sticky choice between two versions.

A version is served by an application of Ray Serve. The version that the settings list first has the application of the
model's name; every other one has `application_of`. One version is stable and answers requests that name none; of those,
a candidate may answer a share. HAProxy makes the choice (`cluster/haproxy/routing.py`); `Route.chosen` is what it has
to choose. Pure: knows neither where routes are kept nor who changes them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SEPARATOR = (
    "@"  # in no model's name; Ray Serve, KubeRay and gRPC's metadata take it as it is, HAProxy's backends as "_"
)
SHARES = 10_000  # a share is given in parts of this

Table = Mapping[str, "Route"]


class BadRoute(ValueError):
    """The route cannot be. The text says why."""


def application_of(model: str, version: str) -> str:
    """Returns the application of a version that is not the first of its model."""
    return f"{model}{SEPARATOR}{version}"


def model_of(application: str) -> str:
    return application.partition(SEPARATOR)[0]


def backend_of(application: str) -> str:
    """Returns how Ray Serve names the application among HAProxy's backends, after `http-` or `grpc-`."""
    return application.replace(SEPARATOR, "_")


def applications(listed: Iterable[tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Returns (model, version) by application. listed: (model, version) in the order of the settings."""
    found: dict[str, tuple[str, str]] = {}
    for model, version in listed:
        found[application_of(model, version) if model in found else model] = (model, version)
    return found


@dataclass(frozen=True, slots=True)
class Route:
    """The route of one model that is in force.

    applications: by version, the version that the settings list first at the beginning.
    share: the part of the requests without a version that the candidate answers, in 1/10000.
    """

    model: str
    applications: Mapping[str, str]
    stable: str
    candidate: str | None = None
    share: int = 0

    def told(self) -> dict[str, Any]:
        """Returns the field `route` of a record, from which `in_force` makes this route again."""
        return {"stable": self.stable, "candidate": self.candidate, "share": self.share}

    def chosen(self, key: str) -> str:
        """Returns the version for a request without one. key: the caller's sticky key."""
        is_candidates = self.candidate is not None and draw(self.model, key) < self.share
        return self.candidate if is_candidates and self.candidate is not None else self.stable

    def changed(self, stable: str, candidate: str | None, share: int) -> "Route":
        """Returns the route with these values. Raises BadRoute."""
        for version in (stable, candidate):
            if version is not None and version not in self.applications:
                served = ", ".join(self.applications)
                raise BadRoute(f"{self.model} has no version {version!r} that is served; there are: {served}")
        if not 0 <= share <= SHARES:
            raise BadRoute(f"a share is from 0 to {SHARES} (in 1/{SHARES}), got {share}")
        if candidate is None and share:
            raise BadRoute("a share is that of a candidate; name one, or leave the share out")
        if candidate == stable:
            raise BadRoute(f"version {stable} is stable already; the candidate has to be another one")
        return Route(self.model, self.applications, stable, candidate, share)


def in_force(model: str, served: Mapping[str, str], told: Mapping[str, Any] | None) -> Route:
    """Returns the route of a model. Where `told` names a version that is not served, the first one is stable, and
    without its application a candidate has no share.

    served: the applications by version, not empty. told: the field `route` of a record; None if there is none."""
    first = Route(model, served, next(iter(served)))
    if told is None or told.get("stable") not in served:
        return first
    stable, candidate, share = told["stable"], told.get("candidate"), told.get("share", 0)
    try:
        return first.changed(stable, candidate, share)
    except (BadRoute, TypeError):
        return first.changed(stable, None, 0)


def share_of(text: str) -> int:
    """Returns a share in 1/10000. text: `5%` or `0.25%`. Raises BadRoute."""
    number, sign, rest = text.strip().partition("%")
    try:
        parts = float(number) * SHARES / 100
    except ValueError:
        parts = -1.0
    if not sign or rest or not 0 <= parts <= SHARES:
        raise BadRoute(f"{text!r} is no share; write 5%, say, from 0% to 100%")
    if abs(parts - round(parts)) > 1e-6:
        raise BadRoute(f"{text}: a share has at most two decimals")
    return round(parts)


def percent(share: int) -> str:
    """Returns the share for people: `5 %`, `0.5 %`."""
    return f"{share * 100 / SHARES:g} %"


def lines(routes: Iterable[Route]) -> list[str]:
    """Returns the routes of models with several versions as lines of a map of HAProxy: the model, and what it needs to
    choose, `stable|candidate|share` with both as applications."""
    return [
        f"{one.model} {one.applications[one.stable]}|{one.applications[one.candidate or one.stable]}|{one.share}"
        for one in routes
        if len(one.applications) > 1
    ]


def draw(model: str, key: str) -> int:
    """Returns a number below SHARES that depends only on the model and the key, as HAProxy's `xxh32,mod` does.

    With the model's name in it, the draws of two models are independent of each other."""
    return xxh32(f"{model}:{key}".encode("latin-1", "replace")) % SHARES


_PRIMES: Sequence[int] = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1)
_WORD = 0xFFFFFFFF


def xxh32(data: bytes) -> int:
    """Returns the hash XXH32 with the seed 0."""
    p1, p2, p3, p4, p5 = _PRIMES
    at = 0
    if len(data) >= 16:
        lanes = [(p1 + p2) & _WORD, p2, 0, -p1 & _WORD]
        while at + 16 <= len(data):
            for lane in range(4):
                word = int.from_bytes(data[at : at + 4], "little")
                lanes[lane] = _rotated(lanes[lane] + word * p2, 13) * p1 & _WORD
                at += 4
        total = sum(_rotated(value, turn) for value, turn in zip(lanes, (1, 7, 12, 18), strict=True))
    else:
        total = p5
    total = (total + len(data)) & _WORD
    while at + 4 <= len(data):
        total = _rotated(total + int.from_bytes(data[at : at + 4], "little") * p3, 17) * p4 & _WORD
        at += 4
    for byte in data[at:]:
        total = _rotated(total + byte * p5, 11) * p1 & _WORD
    for shift, factor in ((15, p2), (13, p3), (16, 1)):
        total = (total ^ total >> shift) * factor & _WORD
    return total


def _rotated(value: int, bits: int) -> int:
    value &= _WORD
    return (value << bits | value >> 32 - bits) & _WORD
