"""The definitions of features: entities, and the views that group the features of one entity. Pure values.

The words are those of Feast: an entity is what features describe (a user, say); a feature view is a group of features
of one entity that are written together.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

DAY_S = 86400
Scalar = bool | int | float | str
DATATYPES = ("BOOL", "INT32", "INT64", "FP32", "FP64", "BYTES")  # BYTES: text in UTF-8


class Missing(StrEnum):
    """The answer for a feature that has no value, or only one that has expired.

    DEFAULT: the default of its definition. REJECT: an error. LAST_KNOWN: the expired value, the default if none.
    """

    DEFAULT = "default"
    REJECT = "reject"
    LAST_KNOWN = "last_known"


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One named value of an entity.

    ttl_s: the seconds after its event time for which a value is valid.
    default: None only if `missing` is REJECT. allow_nan: floats may be NaN or infinite.
    """

    name: str
    datatype: str
    ttl_s: int = DAY_S
    missing: Missing = Missing.REJECT
    default: Scalar | None = None
    allow_nan: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureView:
    """The features of one entity that are written together, with one event time.

    key: the name of the column that holds the entity's id. version: values of another version count as missing.
    transform: `package.module:function`, which makes an Arrow table with the features from one with the raw columns;
        "" if the rows hold the features as they are.
    """

    name: str
    entity: str
    key: str
    features: tuple[Feature, ...]
    version: str = "1"
    transform: str = ""

    def feature(self, name: str) -> Feature:
        """Returns the feature of this name. Raises KeyError."""
        for feature in self.features:
            if feature.name == name:
                return feature
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class FeatureViews:
    """All views of a server by name. No two views of an entity have a feature of the same name."""

    views: Mapping[str, FeatureView] = field(default_factory=dict)

    @classmethod
    def of(cls, views: Iterable[FeatureView]) -> "FeatureViews":
        """Returns the views by name. Raises ValueError if a view or a feature is declared twice."""
        by_name: dict[str, FeatureView] = {}
        owners: dict[tuple[str, str], str] = {}
        for view in views:
            if view.name in by_name:
                raise ValueError(f"the view {view.name!r} is declared twice")
            by_name[view.name] = view
            for feature in view.features:
                other = owners.setdefault((view.entity, feature.name), view.name)
                if other != view.name:
                    raise ValueError(
                        f"{view.name}: {other} has a feature {feature.name!r} of the entity {view.entity!r} already"
                    )
        return cls(by_name)
