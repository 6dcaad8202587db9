"""Binds features to inputs of a model: clients send the ids of entities, and the model gets their features. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serving.features.reading import Selection
from serving.features.views import Feature, FeatureView, FeatureViews

NUMERIC = ("FP32", "FP64")  # datatypes of inputs that take features of all types but BYTES


@dataclass(frozen=True, slots=True)
class Column:
    """One column of an input: a feature of a view."""

    view: FeatureView
    feature: Feature


@dataclass(frozen=True, slots=True)
class Binding:
    """The features of a model.

    entity_input: the input with an entity's id per row, which clients send. inputs: the columns of each input that the
        features fill. All features are of one entity.
    """

    entity_input: str
    inputs: Mapping[str, tuple[Column, ...]]

    def selections(self) -> list[Selection]:
        """Returns, for each view, those of its features that are bound."""
        found: dict[str, tuple[FeatureView, list[Feature]]] = {}
        for column in (column for columns in self.inputs.values() for column in columns):
            _, features = found.setdefault(column.view.name, (column.view, []))
            if column.feature not in features:
                features.append(column.feature)
        return [Selection(view, features) for view, features in found.values()]


def bound(views: FeatureViews, entity_input: str, inputs: Mapping[str, Sequence[str]]) -> Binding:
    """Returns a binding. inputs: per input the features, each as `view.feature`.

    Raises ValueError with the place if there is no such feature, or if they are of several entities."""
    made: dict[str, tuple[Column, ...]] = {}
    first: Column | None = None
    for name, features in inputs.items():
        columns = []
        for index, text in enumerate(features):
            place = f"inputs.{name}[{index}]"
            column = _column(views, text, place)
            first = first or column
            if column.view.entity != first.view.entity:
                raise ValueError(
                    f"{place}: is a feature of {column.view.entity!r}, and those before it are of "
                    f"{first.view.entity!r}; all features of a model are of one entity"
                )
            columns.append(column)
        made[name] = tuple(columns)
    return Binding(entity_input, made)


def _column(views: FeatureViews, text: str, place: str) -> Column:
    view, _, feature = text.partition(".")
    if view not in views.views:
        raise ValueError(f"{place}: {text!r} names no feature: expected view.feature; views: {', '.join(views.views)}")
    found = views.views[view]
    try:
        return Column(found, found.feature(feature))
    except KeyError:
        raise ValueError(f"{place}: {view} has no feature {feature!r}") from None
