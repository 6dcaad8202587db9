"""The requests to read and to write features, and the answer in columns. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serving.features.reading import Answers, Reason, Selection
from serving.features.rows import MOST_ENTITIES, BadField, id_of
from serving.features.values import shown
from serving.features.views import Feature, FeatureView

Json = dict[str, Any]
MOST_LACKED = 50  # features that a header names


@dataclass(frozen=True, slots=True)
class Asked:
    """The features that are asked for of some entities of a view. reasons: whether the answer gives them, and ages."""

    ids: tuple[str, ...]
    features: tuple[Feature, ...]
    reasons: bool = False


class Refused(Exception):
    """A required feature has no valid value. reason: why, for the first of them."""

    def __init__(self, text: str, reason: Reason) -> None:
        super().__init__(text)
        self.reason = reason


def asked_of(view: FeatureView, body: Mapping[str, object]) -> Asked:
    """Returns what `{"ids": [...], "features": [...], "reasons": true}` asks for. The last two may be left out.

    Raises BadField."""
    _only(body, "ids", "features", "reasons")
    ids = _entities(body, "ids")
    reasons = body.get("reasons", False)
    if not isinstance(reasons, bool):
        raise BadField("reasons", f"expected true or false, got {shown(reasons)}")
    names = body.get("features")
    if names is None:
        features = view.features
    elif not isinstance(names, list) or not names:
        raise BadField("features", f"expected a list of names, got {shown(names)}")
    else:
        features = tuple(_feature(view, name, f"features[{index}]") for index, name in enumerate(names))
        if len(set(features)) < len(features):
            raise BadField("features", "names a feature twice")
    return Asked(tuple(id_of(id, f"ids[{index}]") for index, id in enumerate(ids)), features, reasons)


def pushed_of(body: Mapping[str, object]) -> tuple[list[object], bool]:
    """Returns the rows in `{"rows": [...]}` or `{"raw": [...]}`, unchecked, and whether they are raw: then features are
    to be made of their columns. Raises BadField."""
    name = "raw" if "raw" in body else "rows"
    _only(body, name)
    return _entities(body, name), name == "raw"


def columns(selection: Selection, asked: Asked, answers: Sequence[Answers]) -> Json:
    """Returns the answer: per feature a list with an element for each entity. answers: of each entity.

    Raises Refused if a required feature has no valid value."""
    check_required(selection, asked.ids, answers)
    names = selection.names
    told: Json = {
        "view": selection.view.name,
        "ids": list(asked.ids),
        "features": _by_feature(names, [of_entity.values for of_entity in answers]),
    }
    if asked.reasons:
        told["reasons"] = _by_feature(names, [[reason.value for reason in of_entity.reasons] for of_entity in answers])
        told["ages_s"] = _by_feature(names, [_seconds(of_entity.ages_ms()) for of_entity in answers])
    return told


def _by_feature(names: Sequence[str], rows: Sequence[Sequence[object]]) -> dict[str, list[object]]:
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def _seconds(ages_ms: Sequence[int | None]) -> list[float | None]:
    return [None if age_ms is None else age_ms / 1000 for age_ms in ages_ms]


def check_required(asked: Selection, ids: Sequence[str], answers: Sequence[Answers]) -> None:
    """Raises Refused, with the first of them, if required features have no valid value."""
    lacking = [
        (name, id, reason)
        for id, of_entity in zip(ids, answers, strict=True)
        if None in of_entity.values
        for name, value, reason in zip(asked.names, of_entity.values, of_entity.reasons, strict=True)
        if value is None
    ]
    if not lacking:
        return
    view = asked.view
    name, id, reason = lacking[0]
    if reason is Reason.UNAVAILABLE:
        raise Refused(f"{view.name}.{name}: the feature store does not answer", reason)
    more = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
    why = {
        Reason.MISSING: "is not known",
        Reason.EXPIRED: "has expired",
        Reason.OTHER_VERSION: "is only known of another version of the view",
        Reason.UNREADABLE: "cannot be read",
    }
    raise Refused(f"{view.name}.{name}: the value of {view.entity} {id!r} {why[reason]}{more}", reason)


def lacked(asked: Sequence[Selection], answers: Sequence[Sequence[Answers]]) -> str:
    """Returns, in ASCII, of which features no valid value was known, and of how many entities, as in
    `stats.age=missing:2, stats.spend=expired:1`; `none` if all were known. answers: by selection, of each entity."""
    counts = Counter(
        (f"{selection.view.name}.{name}", reason)
        for selection, of_view in zip(asked, answers, strict=True)
        for of_entity in of_view
        for name, reason in zip(selection.names, of_entity.reasons, strict=True)
        if reason is not Reason.PRESENT
    )
    parts = [f"{name}={reason.replace(' ', '-')}:{count}" for (name, reason), count in counts.items()]
    more = [f"and {len(parts) - MOST_LACKED} more"] if len(parts) > MOST_LACKED else []
    return ", ".join(parts[:MOST_LACKED] + more) or "none"


def described(view: FeatureView) -> Json:
    """Returns a view as the list of views shows it."""
    return {
        "name": view.name,
        "entity": view.entity,
        "key": view.key,
        "version": view.version,
        "features": [
            {
                "name": feature.name,
                "datatype": feature.datatype,
                "ttl_s": feature.ttl_s,
                "missing": feature.missing.value,
                "default": feature.default,
            }
            for feature in view.features
        ],
    }


def _only(body: Mapping[str, object], *known: str) -> None:
    for name in body:
        if name not in known:
            raise BadField(name[:100], f"unknown; possible here: {', '.join(known)}")


def _entities(body: Mapping[str, object], name: str) -> list[object]:
    given = body.get(name)
    if given is None:
        raise BadField(name, "is missing")
    if not isinstance(given, list):
        raise BadField(name, f"expected a list, got {shown(given)}")
    if not given:
        raise BadField(name, "is empty")
    if len(given) > MOST_ENTITIES:
        raise BadField(name, f"holds {len(given):,} entries; at most {MOST_ENTITIES:,} are taken in one request")
    return given


def _feature(view: FeatureView, name: object, path: str) -> Feature:
    try:
        return view.feature(str(name))
    except KeyError:
        known = ", ".join(feature.name for feature in view.features[:20])
        raise BadField(path, f"{view.name} has no feature {shown(name)}; it has {known}") from None
