"""The log of served features: JSON lines, one for each sampled answer. Reads it, and compares it with history. Pure.

    {"tenant": "acme", "view": "user_stats", "id": "u7", "at": 1795953600000,
     "values": {"age": 41, "country": "??"}, "reasons": {"age": "present", "country": "missing"}}

`at` is the time of the answer, in milliseconds since 1970. Reasons are those of answers online.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from serving.features.offline.errors import OfflineError
from serving.features.reading import Reason
from serving.features.views import FeatureView, Scalar


class BadLine(OfflineError):
    """A line of the log cannot be read. The text begins with the number of the line, from 1."""


@dataclass(frozen=True, slots=True)
class Served:
    """The answer that a caller got for one entity: values and reasons by feature."""

    tenant: str
    view: str
    id: str
    at_ms: int
    values: Mapping[str, Scalar | None]
    reasons: Mapping[str, str]


class Known(NamedTuple):
    """The answer of the history for a feature. reason: None for a valid value."""

    value: Scalar | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Difference:
    """A feature that was served otherwise than the history says. likely: why, in words."""

    tenant: str
    view: str
    id: str
    at_ms: int
    feature: str
    served: Scalar | None
    known: Scalar | None
    likely: str


def served_in(lines: Iterable[str]) -> Iterator[Served]:
    """Yields the answers in a log. Raises BadLine."""
    for number, text in enumerate(lines, 1):
        if text.strip():
            try:
                yield _served(json.loads(text))
            except (ValueError, RecursionError) as error:
                raise BadLine(f"{number}: {error}") from None


def differences(
    view: FeatureView, served: Served, known: Mapping[str, Known], by_event: Mapping[str, Known]
) -> Iterator[Difference]:
    """Yields the features of which the value, or whether there was a valid one, differs from the history.

    Features that are not declared, or were not served because the store was down, are not compared.
    known: what the store knew at that time. by_event: the same, had everything been known from its event on.
    """
    for feature in view.features:
        reason = served.reasons.get(feature.name)
        if reason is None or reason == Reason.UNAVAILABLE:
            continue
        was = Known(served.values.get(feature.name), None if reason == Reason.PRESENT else reason)
        now = known[feature.name]
        if not _are_equal(was, now):
            likely = _likely(was, now, by_event[feature.name])
            yield Difference(
                served.tenant, served.view, served.id, served.at_ms, feature.name, was.value, now.value, likely
            )


def _are_equal(one: Known, other: Known) -> bool:
    is_same = one.value == other.value or (one.value != one.value and other.value != other.value)  # NaN is not itself
    return is_same and (one.reason is None) == (other.reason is None)


def _likely(was: Known, now: Known, by_event: Known) -> str:
    if was.reason is not None and now.reason is not None:
        return "the default was another one"
    if was.reason == Reason.OTHER_VERSION:
        return "online, the latest value was of another version of the view"
    if was.reason is not None:
        return f"the value was not online ({was.reason}): it was never put there, or not kept"
    if _are_equal(was, by_event):
        return "it was stored in files only after it had been served"
    if now.reason is not None:
        return "the value is in no file: it was put online only"
    return "another value was the latest online than in the files"


def _served(told: object) -> Served:
    """Returns the answer in a line. Raises ValueError with the field."""
    if not isinstance(told, dict):
        raise ValueError("is no JSON object")
    for name in ("tenant", "view", "id"):
        if not isinstance(told.get(name), str):
            raise ValueError(f"{name}: expected a text")
    at, values, reasons = told.get("at"), told.get("values"), told.get("reasons")
    if not isinstance(at, int) or isinstance(at, bool) or not 0 <= at < 253_402_300_800_000:
        raise ValueError("at: expected milliseconds since 1970")
    if not isinstance(values, dict) or not all(isinstance(value, Scalar | None) for value in values.values()):
        raise ValueError("values: expected an object with a value for each feature")
    if not isinstance(reasons, dict) or not all(isinstance(reason, str) for reason in reasons.values()):
        raise ValueError("reasons: expected an object with a text for each feature")
    return Served(told["tenant"], told["view"], told["id"], at, values, reasons)
