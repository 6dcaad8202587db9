"""Decides the answer for a feature from what is stored of it: a value with the reason and its age. Pure."""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from msgspec import Struct

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


class Stored(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A value as it is stored: the store packs these fields in this order.

    event_ms: milliseconds since 1970. version: of the view that wrote it. value: None is known to be missing.
    """

    event_ms: int
    version: str
    value: Scalar | None


Found = Stored | Reason  # MISSING, UNREADABLE or UNAVAILABLE, if there is no stored value


class Answers(NamedTuple):
    """The answers for features of one entity, in the order of the features.

    values: None is a refusal, because the feature is required. found, now_ms: what was stored, and when.
    """

    values: Sequence[Scalar | None]
    reasons: Sequence[Reason]
    found: Sequence[Found]
    now_ms: int

    def ages_ms(self) -> list[int | None]:
        """Returns the times since the events of the stored values; None if there is none."""
        return [max(self.now_ms - one.event_ms, 0) if isinstance(one, Stored) else None for one in self.found]


_KINDS: dict[str, type] = {"BOOL": bool, "INT32": int, "INT64": int, "FP32": float, "FP64": float, "BYTES": str}


class Selection:
    """Features of a view that are asked for together, in this order. It answers for any entity, at any time."""

    def __init__(self, view: FeatureView, features: Sequence[Feature]) -> None:
        self.view = view
        self.features = tuple(features)
        self.names = tuple(feature.name for feature in features)
        # Looked up once, since a request may ask for thousands of values.
        self._valid = [(_KINDS[one.datatype], one.ttl_s * 1000) for one in features]
        self.all_present = (Reason.PRESENT,) * len(self.names)

    def answers(self, found: Sequence[Found], now_ms: int) -> Answers:
        """Returns the answer for each feature. found: what is stored of each. now_ms: milliseconds since 1970."""
        own = self.view.version
        for (kind, ttl_ms), one in zip(self._valid, found, strict=True):
            if type(one) is not Stored or now_ms - one.event_ms >= ttl_ms:
                break
            if type(one.value) is not kind or one.version != own:
                break
        else:
            return Answers([one.value for one in found], self.all_present, found, now_ms)
        reasons = [self._reason(feature, one, now_ms) for feature, one in zip(self.features, found, strict=True)]
        values = map(_value, self.features, found, reasons)
        return Answers(list(values), reasons, found, now_ms)

    def _reason(self, feature: Feature, found: Found, now_ms: int) -> Reason:
        if not isinstance(found, Stored):
            return found
        if found.version != self.view.version:
            return Reason.OTHER_VERSION
        if found.value is None:
            return Reason.MISSING
        if type(found.value) is not _KINDS[feature.datatype]:
            return Reason.UNREADABLE
        return Reason.PRESENT if now_ms - found.event_ms < feature.ttl_s * 1000 else Reason.EXPIRED


def _value(feature: Feature, found: Found, reason: Reason) -> Scalar | None:
    is_answered = reason is Reason.PRESENT or (reason is Reason.EXPIRED and feature.missing is Missing.LAST_KNOWN)
    return found.value if is_answered and isinstance(found, Stored) else feature.default


def keep_ms(feature: Feature) -> int:
    """Returns how long the store keeps a value from when it is written."""
    return (feature.ttl_s + (KEPT_LONGER_S if feature.missing is Missing.LAST_KNOWN else 0)) * 1000
