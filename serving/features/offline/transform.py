"""The transformation of a view: an Arrow table with raw columns becomes one with exactly the view's features.

A view names its function as `package.module:function`; without one, the raw columns are the features. Whatever the
function returns is checked against the declaration before anyone uses it.
"""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from models.beside import import_beside
from serving.features.offline.columns import is_text
from serving.features.offline.errors import OfflineError
from serving.features.offline.layout import TYPES
from serving.features.values import FLOATS, LONGEST_TEXT
from serving.features.views import Feature, FeatureView

Transformation = Callable[[pa.Table], pa.Table]


class BadTransformation(OfflineError):
    """The function that a view names cannot be found, fails, or returns something that is no table of the features."""


class BadColumn(ValueError):
    """A column is not as declared. row: the first row that is wrong, from 0; None if the whole column is."""

    def __init__(self, column: str, fact: str, row: int | None = None) -> None:
        super().__init__(f"{column}: {fact}" + ("" if row is None else f" (row {row})"))
        self.column, self.fact, self.row = column, fact, row


def transformation_of(view: FeatureView, folder: str | None) -> Transformation:
    """Returns the function that makes the view's features. Raises BadTransformation.

    folder: the folder of the settings, which may contain the function's module."""
    if not view.transform:
        return lambda raw: raw.select([name for name in raw.column_names if name in _names(view)])
    module_name, _, name = view.transform.partition(":")
    try:
        found = getattr(import_beside(module_name, folder), name, None)
    except Exception as error:
        raise BadTransformation(f"{view.transform} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise BadTransformation(f"{view.transform}: {module_name} has no function {name!r}")
    function: Transformation = found
    return function


def features_of(view: FeatureView, transformation: Transformation, raw: pa.Table) -> pa.Table:
    """Returns the features of the rows, in the order and with the types of the declaration.

    Raises BadTransformation, and BadColumn for the first column that is not as declared.
    """
    told = view.transform or view.name
    try:
        made = transformation(raw)
    except Exception as error:
        raise BadTransformation(f"{told} failed: {type(error).__name__}: {error}") from error
    if not isinstance(made, pa.Table):
        raise BadTransformation(f"{told} returned a {type(made).__name__}; expected a pyarrow.Table")
    if made.num_rows != raw.num_rows:
        raise BadTransformation(f"{told} made {made.num_rows} rows of {raw.num_rows}; expected a row for each")
    for name in made.column_names:
        if name not in _names(view):
            raise BadColumn(name, f"is no feature of {view.name}; its features: {', '.join(_names(view))}")
    return pa.table({feature.name: _checked(feature, made) for feature in view.features})


def _checked(feature: Feature, made: pa.Table) -> pa.ChunkedArray:
    if (count := made.column_names.count(feature.name)) != 1:
        raise BadColumn(feature.name, "is missing" if not count else "is there twice")
    column = made.column(feature.name)
    wanted = TYPES[feature.datatype]
    if column.type != wanted and not _is_alike(column.type, wanted):
        raise BadColumn(feature.name, f"is of type {column.type}; {feature.datatype} is {wanted}")
    column = column.cast(wanted)
    if feature.datatype in FLOATS and not feature.allow_nan:
        refuse(feature.name, pc.invert(pc.is_finite(column)), "is NaN or infinite; `allow_nan: true` allows it")
    if feature.datatype == "BYTES":
        refuse(
            feature.name, pc.greater(pc.binary_length(column), LONGEST_TEXT), f"has more than {LONGEST_TEXT:,} bytes"
        )
    return column


def refuse(column: str, is_wrong: pa.Array | pa.ChunkedArray, fact: str) -> None:
    """Raises BadColumn for the first row of the column for which the second is true."""
    row = pc.index(is_wrong, True).as_py()
    if row >= 0:
        raise BadColumn(column, fact, row)


def _is_alike(kind: pa.DataType, wanted: pa.DataType) -> bool:
    """Returns whether a column of this type holds the same values as one of the wanted type: nulls, or texts."""
    if pa.types.is_null(kind):
        return True
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return wanted == pa.string() and is_text(kind)


def _names(view: FeatureView) -> list[str]:
    return [feature.name for feature in view.features]
