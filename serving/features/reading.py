"""Decides the answer for a feature from what is stored of it: a value with the reason and its age. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from serving.features.views import Feature, FeatureView, Missing, Scalar

KEPT_LONGER_S = 7 * 86400  # a value that may be answered after it has expired


class Reason(StrEnum):
    """The reason of an answer: there is a valid value, or why there is none."""

    PRESENT = "present"
    MISSING = "missing"  # no value is stored, or the latest event says that none is known
    EXPIRED = "expired"
    OTHER_VERSION = "other version"  # of the view, under which the value was written
    UNREADABLE = "unreadable"  # the store holds something that is no value of this feature
    UNAVAILABLE = "unavailable"  # the store does not answer


class Stored(NamedTuple):
    """A value as it is stored: the store packs these fields in this order.

    event_ms: milliseconds since 1970. version: of the view that wrote it. value: None is known to be missing.
    """

    event_ms: int
    version: str
    value: Scalar | None


Found = Stored | Reason  # MISSING, UNREADABLE or UNAVAILABLE, if there is no stored value


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer for one feature of one entity. value: None is a refusal, because the feature is required.

    age_ms: the time since the event of the stored value; None if there is none.
    """

    value: Scalar | None
    reason: Reason
    age_ms: int | None = None


_KINDS = {"BOOL": bool, "INT32": int, "INT64": int, "FP32": float, "FP64": float, "BYTES": str}


def answer(view: FeatureView, feature: Feature, found: Found, now_ms: int) -> Answer:
    """Returns the answer for a feature. now_ms: milliseconds since 1970."""
    if isinstance(found, Reason):
        return Answer(feature.default, found)
    age_ms = max(0, now_ms - found.event_ms)
    if found.version != view.version:
        return Answer(feature.default, Reason.OTHER_VERSION, age_ms)
    if found.value is None:
        return Answer(feature.default, Reason.MISSING, age_ms)
    if type(found.value) is not _KINDS[feature.datatype]:
        return Answer(feature.default, Reason.UNREADABLE, age_ms)
    if age_ms < feature.ttl_s * 1000:
        return Answer(found.value, Reason.PRESENT, age_ms)
    value = found.value if feature.missing is Missing.LAST_KNOWN else feature.default
    return Answer(value, Reason.EXPIRED, age_ms)


def keep_ms(feature: Feature) -> int:
    """Returns how long the store keeps a value from when it is written."""
    return (feature.ttl_s + (KEPT_LONGER_S if feature.missing is Missing.LAST_KNOWN else 0)) * 1000
