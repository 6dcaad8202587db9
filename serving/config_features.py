"""The settings `features`: entities and feature views, in the settings file or in a file of their own beside it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, ValidationInfo
from pydantic import model_validator as checks_all

from models.spec import TensorSpec
from serving.config_mistakes import mistakes
from serving.config_section import Section
from serving.config_source import SettingsError, Source, read_source
from serving.config_values import ImportString, StatePlace, Version, WholePath
from serving.features.binding import NUMERIC, bound
from serving.features.values import fitting
from serving.features.views import DAY_S, Feature, FeatureView, FeatureViews, Missing

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
# Columns that Headway itself writes.
RESERVED = ("entity_id", "cleared", "event_ts", "created_ts", "view_version", "tenant", "view", "date")
KEY = "features"
Read = TypeVar("Read", bound=Section)


def _name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError("a name here has 1 to 64 letters, digits and '_', and does not begin with a digit")
    return name


def _column(name: str) -> str:
    if _name(name) in RESERVED:
        raise ValueError(f"{name!r} is a column that Headway itself writes; take another name")
    return name


Name = Annotated[str, AfterValidator(_name)]
Column = Annotated[str, AfterValidator(_column)]


class EntitySettings(Section):
    """Settings of one kind of thing that features describe."""

    key: Column = Field(description="The column, in rows that are pushed and in Parquet, that holds an entity's id.")


class FeatureSettings(Section):
    """Settings of one feature."""

    type: Literal["BOOL", "INT32", "INT64", "FP32", "FP64", "BYTES"] = Field(
        description="BOOL, INT32, INT64, FP32, FP64, or BYTES, which is text in UTF-8."
    )
    ttl_s: int | None = Field(
        None, ge=1, description="The seconds after its event time for which a value is valid. Unset: those of the view."
    )
    missing: Literal["reject", "default", "last_known"] = Field(
        "reject",
        description="The answer where no valid value is known. `reject`: an error. `default`: the default. "
        "`last_known`: the last value although it has expired, the default where none is kept any more.",
    )
    default: bool | int | float | str | None = Field(
        None, description="The value for `default` and `last_known`, which need one."
    )
    allow_nan: bool = Field(False, description="Values of FP32 and FP64 may be NaN or infinite.")

    @checks_all(mode="after")
    def _check(self) -> Self:
        if self.missing == "reject" and self.default is not None:
            raise ValueError("default: is never used, because `missing` is reject")
        if self.missing != "reject" and self.default is None:
            raise ValueError(f"default: is missing; `missing: {self.missing}` needs one")
        if self.allow_nan and self.type not in ("FP32", "FP64"):
            raise ValueError(f"allow_nan: a value of {self.type} is never NaN")
        if self.default is not None:
            try:
                fitting(self.type, self.default)
            except ValueError as error:
                raise ValueError(f"default: {error}") from None
        return self


class ViewSettings(Section):
    """Settings of the features of one entity that are written together."""

    entity: Name = Field(description="The entity that the features describe; one of `features.entities`.")
    version: Version = Field(
        "1", description="Change it when the features change their meaning: values of other versions count as missing."
    )
    ttl_s: int = Field(DAY_S, ge=1, description="The `ttl_s` of features that have none of their own.")
    transform: ImportString | None = Field(
        None,
        description="`package.module:function` that makes an Arrow table with the features from one with raw columns, "
        "when Parquet files are materialized, or raw rows are pushed. Unset: they hold the features themselves.",
    )
    features: dict[Column, FeatureSettings] = Field(min_length=1, description="The features by name.")

    def view(self, name: str, key: str) -> FeatureView:
        made = tuple(
            Feature(
                name=feature,
                datatype=told.type,
                ttl_s=told.ttl_s or self.ttl_s,
                missing=Missing(told.missing),
                default=None if told.default is None else fitting(told.type, told.default),
                allow_nan=told.allow_nan,
            )
            for feature, told in self.features.items()
        )
        return FeatureView(
            name=name, entity=self.entity, key=key, features=made, version=self.version, transform=self.transform or ""
        )


class FeatureStoreSettings(Section):
    """Settings of the feature store."""

    entities: dict[Name, EntitySettings] = Field(min_length=1, description="The kinds of things that are described.")
    views: dict[Name, ViewSettings] = Field(min_length=1, description="The feature views by name.")
    history: StatePlace | None = Field(
        None,
        description="Where the history of features is kept, in Parquet files: a folder, `file:///folder`, or "
        "`s3://bucket/folder`. Unset: `features` in `server.state`.",
    )
    folder: WholePath | None = Field(
        None,
        description="The folder of this machine for what was pushed and is not in the history yet, the log of what is "
        "served, and copies of files in a bucket. Unset: `features` in `server.state`, if that is a folder.",
    )
    served_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="The share of look-ups whose answers are logged in `served` of that folder, for "
        "`headway features check`.",
    )

    def declared(self) -> FeatureViews:
        return FeatureViews.of(view.view(name, self.entities[view.entity].key) for name, view in self.views.items())

    @checks_all(mode="after")
    def _check(self) -> Self:
        for name, view in self.views.items():
            if view.entity not in self.entities:
                known = ", ".join(self.entities)
                raise ValueError(f"views.{name}.entity: there is no entity {view.entity!r}; known: {known}")
            if (key := self.entities[view.entity].key) in view.features:
                raise ValueError(f"views.{name}.features.{key}: is the column of the entity's id; take another name")
        try:
            self.declared()
        except ValueError as error:
            raise ValueError(f"views.{error}") from None
        return self


class BoundFeaturesSettings(Section):
    """Settings of the features that a model gets as inputs."""

    entity_input: str = Field(
        min_length=1,
        description="The input that clients send in place of those below: BYTES of shape [-1, 1], the id of an entity "
        "per row.",
    )
    inputs: dict[str, list[str]] = Field(
        min_length=1,
        description="Features by the input that they fill, each as `view.feature`, one for each column. An input of "
        "FP32 or FP64 takes features of all types but BYTES, one of BYTES takes those.",
    )

    def mistake(self, views: FeatureViews, inputs: Mapping[str, TensorSpec]) -> str | None:
        """Returns what does not fit with the views or with a model's inputs, None if all does."""
        try:
            binding = bound(views, self.entity_input, self.inputs)
        except ValueError as error:
            return str(error)
        if self.entity_input in inputs:
            return f"entity_input: {self.entity_input!r} is an input of the model already"
        for name, columns in binding.inputs.items():
            place = f"inputs.{name}"
            if name not in inputs:
                return f"{place}: the model has no such input; it has {', '.join(inputs)}"
            if inputs[name].shape != (-1, len(columns)):
                return f"{place}: lists {len(columns)} features; the input's shape is {list(inputs[name].shape)}"
            datatype = inputs[name].datatype
            if datatype not in (*NUMERIC, "BYTES"):
                return f"{place}: the input is {datatype}; features fill inputs of FP32, FP64 and BYTES"
            for index, column in enumerate(columns):
                if (column.feature.datatype == "BYTES") != (datatype == "BYTES"):
                    return f"{place}[{index}]: the feature is {column.feature.datatype}, the input {datatype}"
        return None


def _of_file(value: object, info: ValidationInfo) -> object:
    """Returns a section as it is. If the value is a path (relative to the settings file), reads the section from there.

    Raises ValueError with every mistake in that file."""
    if not isinstance(value, str):
        return value
    try:
        source = read_source(Path((info.context or {}).get("folder", "."), value))
        return _read(FeatureStoreSettings, source.data, source)
    except SettingsError as error:
        raise ValueError("\n".join(f"the file named here, {mistake}" for mistake in error.mistakes)) from None


InlineOrFile = Annotated[FeatureStoreSettings, BeforeValidator(_of_file)]


class _OnlyFeatures(Section):
    """A settings file of which only one key is looked at."""

    features: InlineOrFile


def load_views(path: str | Path) -> FeatureViews:
    """Reads the views from a settings file with the key `features`, or from a file that holds only that section.

    Nothing else in a settings file is checked. Raises SettingsError with every mistake in them."""
    source = read_source(Path(path))
    if not isinstance(source.data, Mapping):
        raise SettingsError([f"{source.path}: expected `entities:` and `views:`, or settings with `features:`"])
    if KEY in source.data:
        return _read(_OnlyFeatures, {KEY: source.data[KEY]}, source).features.declared()
    return _read(FeatureStoreSettings, source.data, source).declared()


def _read(section: type[Read], data: object, source: Source) -> Read:
    """Returns this data of a file as a section. Raises SettingsError with every mistake in it."""
    try:
        return section.model_validate(data, context={"folder": source.folder})
    except ValidationError as error:
        raise SettingsError(mistakes(error, section, source)) from error
