"""The plan of a release as a value: its steps, its tests before the first one, and the limits that its judge applies.

Pure. A plan comes from a request's JSON, is kept in the record that starts the release, and is read from there by
whoever goes on with it. Knows nothing of how a step is judged.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from serving.traffic.routes import SHARES

STEPS = (500, 2_500, 5_000, SHARES)
MOST_STEPS = 20
LONGEST_S = 30 * 86_400.0


class BadPlan(ValueError):
    """The plan is none. path: the field that is wrong."""

    def __init__(self, text: str, path: str) -> None:
        super().__init__(f"{path}: {text}")
        self.path = path
        self.text = text


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The steps of a release, and its limits.

    shares: of the candidate, one for each step, in 1/10000, rising to the whole. soak_s: how long each step lasts at
    least. deadline_s: a step that is not decided by then is held. requests: how many the candidate has to answer in
    each step. smoke: whether the model's example is sent to the candidate first. shadow: how many recorded requests are
    replayed to both versions before the first step. agreement: the part of them that must have the same answer; None:
    only told. errors: the part of requests that may fail. slower: by how much the candidate's latency may exceed that
    of the stable version. business: by how much the mean of the values that clients send back may be below that of the
    stable version; None: it is not judged.
    """

    shares: tuple[int, ...] = STEPS
    soak_s: float = 60.0
    deadline_s: float = 3600.0
    requests: int = 100
    smoke: bool = True
    shadow: int = 200
    agreement: float | None = None
    errors: float = 0.05
    slower: float = 2.0
    business: float | None = None

    def told(self) -> dict[str, Any]:
        """Returns the plan as JSON, from which `plan_of` makes it again."""
        return asdict(self) | {"shares": list(self.shares)}


_BOUNDS: Mapping[str, tuple[float, float, str]] = {
    "soak_s": (0.0, LONGEST_S, "must be seconds, 30 days at most"),
    "deadline_s": (1.0, LONGEST_S, "must be seconds, from 1 to 30 days"),
    "requests": (1, 10_000_000, "must be a whole number from 1"),
    "shadow": (0, 100_000, "must be a whole number, 0 for no replay, at most 100000"),
    "agreement": (0.0, 1.0, "must be a part from 0 to 1, or null"),
    "errors": (0.001, 0.5, "must be a part of all requests from 0.001 to 0.5"),
    "slower": (1.1, 100.0, "must be a factor from 1.1 to 100"),
    "business": (0.001, 1.0, "must be a margin from 0.001 to 1, or null"),
}
_OPTIONAL = ("agreement", "business")
_WHOLE_NUMBERS = ("requests", "shadow")


def plan_of(told: Mapping[str, Any]) -> Plan:
    """Returns the plan that JSON describes; what it leaves out has its default. Raises BadPlan."""
    known = {field.name for field in fields(Plan)}
    for name in told:
        if name not in known:
            raise BadPlan(f"is no part of a plan; there are: {', '.join(sorted(known))}", str(name)[:40])
    found: dict[str, Any] = {name: _bounded(name, told[name]) for name in _BOUNDS if name in told}
    if "shares" in told:
        found["shares"] = shares_of(told["shares"])
    if "smoke" in told:
        if not isinstance(told["smoke"], bool):
            raise BadPlan("must be true or false", "smoke")
        found["smoke"] = told["smoke"]
    plan = Plan(**found)
    if plan.deadline_s <= plan.soak_s:
        raise BadPlan("must be longer than soak_s, or no step could end in time", "deadline_s")
    return plan


def shares_of(told: object) -> tuple[int, ...]:
    """Returns the shares of a plan's steps. Raises BadPlan unless they rise, the last one to the whole."""
    if not isinstance(told, list | tuple) or not 0 < len(told) <= MOST_STEPS:
        raise BadPlan(f"must be a list of 1 to {MOST_STEPS} shares", "shares")
    for share in told:
        if type(share) is not int or not 0 < share <= SHARES:
            raise BadPlan(f"each must be a whole number of 1/{SHARES}, from 1 to {SHARES}", "shares")
    if any(later <= earlier for earlier, later in itertools.pairwise(told)):
        raise BadPlan("each must be larger than the one before", "shares")
    if told[-1] != SHARES:
        raise BadPlan("the last one must be all requests: no version becomes stable that never had them all", "shares")
    return tuple(told)


def steps_of(text: str) -> tuple[int, ...]:
    """Returns the shares of `5,25,50,100`, steps in percent as people write them. Raises BadPlan."""
    shares = []
    for part in text.split(","):
        try:
            percent = float(part.strip().removesuffix("%"))
        except ValueError:
            percent = math.nan
        share = percent * SHARES / 100
        if not math.isfinite(share) or abs(share - round(share)) > 1e-6:
            raise BadPlan(f"{part.strip()[:20]!r} is no percentage of hundredths at most, as in 0.5,5,25,100", "steps")
        shares.append(round(share))
    return shares_of(shares)


def _bounded(name: str, value: object) -> float | int | None:
    least, most, text = _BOUNDS[name]
    if value is None and name in _OPTIONAL:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise BadPlan(text, name)
    if name in _WHOLE_NUMBERS and value != int(value):
        raise BadPlan(text, name)
    return int(value) if name in _WHOLE_NUMBERS else float(value)
