"""Tests the definitions of feature views."""

import pytest

from serving.features.views import Feature, FeatureView, FeatureViews


def view(name: str, *features: str, entity: str = "user") -> FeatureView:
    made = tuple(Feature(name=feature, datatype="INT64") for feature in features)
    return FeatureView(name=name, entity=entity, key="user_id", features=made)


def test_views_of_one_entity_share_no_feature() -> None:
    with pytest.raises(ValueError, match="clicks: profile has a feature 'age' of the entity 'user' already"):
        FeatureViews.of([view("profile", "age"), view("clicks", "count", "age")])


def test_views_of_different_entities_may_have_features_of_the_same_name() -> None:
    views = FeatureViews.of([view("profile", "age"), view("shop", "age", entity="shop")])
    assert views.views["shop"].feature("age").name == "age"


def test_a_view_is_declared_once() -> None:
    with pytest.raises(ValueError, match="'profile' is declared twice"):
        FeatureViews.of([view("profile", "age"), view("profile", "size")])
