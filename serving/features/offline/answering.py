"""The answer for a feature at a label, as expressions of SQL over what the join found. Pure.

Whether a value is valid, how long an expired one is kept, and what stands in for one that is missing, are as online.
"""

from serving.features.reading import KEPT_LONGER_S, Reason
from serving.features.views import Feature, FeatureView, Missing

SQL_TYPES = {
    "BOOL": "BOOLEAN",
    "INT32": "INTEGER",
    "INT64": "BIGINT",
    "FP32": "FLOAT",
    "FP64": "DOUBLE",
    "BYTES": "VARCHAR",
}
MICROS = 1_000_000
MOST_US = 1 << 60  # 36,000 years: a longer time to live is the same
KEPT_LONGER_US = KEPT_LONGER_S * MICROS  # an older value counts as missing, not as expired


def column_of(view: FeatureView, feature: Feature) -> str:
    """Returns the name of the feature's column in a training set, which holds the features of several views."""
    return f"{view.name}__{feature.name}"


def reason_column_of(view: FeatureView, feature: Feature) -> str:
    return f"{column_of(view, feature)}__reason"


def ttl_us(feature: Feature) -> int:
    return min(feature.ttl_s * MICROS, MOST_US)


def oldest_us(view: FeatureView) -> int:
    """Returns the age from which on no value of the view is an answer, or tells expired from missing."""
    return max(ttl_us(feature) for feature in view.features) + KEPT_LONGER_US


def answer(feature: Feature, table: str) -> str:
    """Returns the expression for the value by the feature's policy: null only if it is to be rejected.

    table: with the columns `asked_at`, `event` and the features; the latter are null where nothing was found."""
    default = "NULL" if feature.default is None else text(str(feature.default))
    is_answer = is_valid(feature, table)
    if feature.missing is Missing.LAST_KNOWN:
        is_answer += f" OR {is_expired(feature, table)}"
    kind = SQL_TYPES[feature.datatype]
    return f"CASE WHEN {is_answer} THEN {table}.{feature_column(feature)} ELSE CAST({default} AS {kind}) END"


def reason(feature: Feature, table: str) -> str:
    """Returns the expression for the reason why there is no valid value; null if there is one."""
    return (
        f"CASE WHEN {is_valid(feature, table)} THEN NULL "
        f"WHEN {is_expired(feature, table)} THEN '{Reason.EXPIRED}' ELSE '{Reason.MISSING}' END"
    )


def is_valid(feature: Feature, table: str) -> str:
    return f"({table}.{feature_column(feature)} IS NOT NULL AND {_age(table)} < {ttl_us(feature)})"


def is_expired(feature: Feature, table: str) -> str:
    least = ttl_us(feature)
    age = f"{_age(table)} >= {least} AND {_age(table)} < {least + KEPT_LONGER_US}"
    return f"({table}.{feature_column(feature)} IS NOT NULL AND {age})"


def feature_column(feature: Feature) -> str:
    """Returns the column of the feature in tables of the join, whose other columns have names without a blank."""
    return quoted(f"feature {feature.name}")


def key_column(view: FeatureView) -> str:
    """Returns the column with the ids of the view's entity in the join's table `labels`."""
    return quoted(f"key {view.key}")


def quoted(name: str) -> str:
    """Returns the name as SQL takes it."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """Returns the text as SQL takes it."""
    return "'" + value.replace("'", "''") + "'"


def _age(table: str) -> str:
    return f"({table}.asked_at - {table}.event)"
