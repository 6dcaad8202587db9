"""Decides the answer for a feature from what is stored of it: a value with the reason and its age. Pure."""

from collections.abc import Callable
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


class Answer(NamedTuple):
    """The answer for one feature of one entity. value: None is a refusal, because the feature is required.

    age_ms: the time since the event of the stored value; None if there is none.
    """

    value: Scalar | None
    reason: Reason
    age_ms: int | None = None


_KINDS = {"BOOL": bool, "INT32": int, "INT64": int, "FP32": float, "FP64": float, "BYTES": str}


def answering(view: FeatureView, feature: Feature, now_ms: int) -> Callable[[Found], Answer]:
    """Returns the function that answers for a feature, whatever the entity. now_ms: milliseconds since 1970."""
    # Looked up once, since a request may ask for thousands of values.
    own, default, kind, ttl_ms = view.version, feature.default, _KINDS[feature.datatype], feature.ttl_s * 1000
    answers_late, present = feature.missing is Missing.LAST_KNOWN, Reason.PRESENT

    def answer(found: Found) -> Answer:
        if not isinstance(found, Stored):
            return Answer(default, found)
        event_ms, version, value = found
        age_ms = now_ms - event_ms if event_ms < now_ms else 0
        if version != own:
            return Answer(default, Reason.OTHER_VERSION, age_ms)
        if value is None:
            return Answer(default, Reason.MISSING, age_ms)
        if type(value) is not kind:
            return Answer(default, Reason.UNREADABLE, age_ms)
        if age_ms < ttl_ms:
            return Answer(value, present, age_ms)
        return Answer(value if answers_late else default, Reason.EXPIRED, age_ms)

    return answer


def keep_ms(feature: Feature) -> int:
    """Returns how long the store keeps a value from when it is written."""
    return (feature.ttl_s + (KEPT_LONGER_S if feature.missing is Missing.LAST_KNOWN else 0)) * 1000
