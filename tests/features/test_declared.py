"""Tests the settings `features`: they arrive unchanged, also from a file of their own; mistakes have their line."""

from pathlib import Path

import pytest

from serving.cluster.features import bound_features, shown
from serving.config import Settings, SettingsError, load_settings
from serving.config_features import load_views
from serving.features.views import Feature, FeatureView, Missing

SECTION = """\
entities: {user: {key: user_id}}
views:
  user_stats:
    entity: user
    version: 2
    ttl_s: 600
    transform: shop.features:stats
    features:
      age: {type: INT64}
      country: {type: BYTES, missing: default, default: "??"}
      spend: {type: FP32, ttl_s: 60, missing: last_known, default: 1, allow_nan: true}
"""
MODELS = """\
models:
  - name: doubler
    factory: shop.models:Doubler
    inputs: [{name: x, datatype: FP32, shape: [-1, 4]}]
    outputs: [{name: y, datatype: FP32, shape: [-1, 4]}]
"""
VIEW = FeatureView(
    name="user_stats",
    entity="user",
    key="user_id",
    version="2",
    transform="shop.features:stats",
    features=(
        Feature(name="age", datatype="INT64", ttl_s=600),
        Feature(name="country", datatype="BYTES", ttl_s=600, missing=Missing.DEFAULT, default="??"),
        Feature(
            name="spend", datatype="FP32", ttl_s=60, missing=Missing.LAST_KNOWN, default=1.0, allow_nan=True
        ),
    ),
)  # fmt: skip


def inlined(section: str) -> str:
    return MODELS + "features:\n" + "".join(f"  {line}\n" for line in section.splitlines())


def written(folder: Path, text: str, name: str = "my.yaml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_views_are_read_from_the_settings_from_a_file_they_name_and_from_that_file_itself(tmp_path: Path) -> None:
    section = written(tmp_path, SECTION, "shop.yaml")
    for path in (
        section,
        written(tmp_path, inlined(SECTION), "inlined.yaml"),
        written(tmp_path, MODELS + "features: shop.yaml\n", "naming.yaml"),
    ):
        assert load_views(path).views == {"user_stats": VIEW}, path


@pytest.mark.parametrize("text", [inlined(SECTION), MODELS + "features: ./shop.yaml\n"], ids=["inlined", "named"])
def test_a_manifest_carries_the_views_themselves(text: str, tmp_path: Path) -> None:
    written(tmp_path, SECTION, "shop.yaml")
    settings = load_settings(written(tmp_path, text))
    carried = Settings.model_validate(settings.as_mapping())
    assert carried.features is not None
    assert carried.features.declared().views == {"user_stats": VIEW}


def test_the_rest_of_a_settings_file_is_not_looked_at(tmp_path: Path) -> None:
    text = inlined(SECTION).replace("factory", "no_such_key")
    assert load_views(written(tmp_path, text)).views == {"user_stats": VIEW}


@pytest.mark.parametrize(
    ("part", "wrong", "message"),
    [
        ("type: INT64", "type: INT4", ":9: views.user_stats.features.age.type: 'INT4' is not possible"),
        ("type: INT64", "typ: INT64", ":9: views.user_stats.features.age.typ: unknown key; did you mean 'type'?"),
        ("entity: user", "entity: shop", ":4: views.user_stats.entity: there is no entity 'shop'; known: user"),
        ("ttl_s: 600", "ttl_s: 0", ":6: views.user_stats.ttl_s: "),
        ("shop.features:stats", "stats", ":7: views.user_stats.transform: 'stats' is not of the form"),
        ('default: "??"', "default: 4", ":10: views.user_stats.features.country.default: expected a text (BYTES), got"),
        (', default: "??"', "", ":10: views.user_stats.features.country.default: is missing; `missing: default` needs"),
        ("default: 1,", "default: 1.0e+300,", ":11: views.user_stats.features.spend.default: 1e+300 does not fit into"),
        ("type: INT64", "type: INT64, default: 1", ":9: views.user_stats.features.age.default: is never used"),
        ("type: INT64", "type: INT64, allow_nan: true", ":9: views.user_stats.features.age.allow_nan: a value of"),
        ("age:", "user_id:", ":9: views.user_stats.features.user_id: is the column of the entity's id"),
        ("age:", "event_ts:", ":9: views.user_stats.features.event_ts: 'event_ts' is a column that Headway itself"),
        ("age:", "a-b:", ":9: views.user_stats.features.a-b: a name here has 1 to 64 letters"),
        (SECTION.partition("views:")[2], " {}\n", ":2: views: needs at least 1 entry"),
    ],
)
def test_a_mistake_is_reported_with_its_line(part: str, wrong: str, message: str, tmp_path: Path) -> None:
    assert part in SECTION
    with pytest.raises(SettingsError) as caught:
        load_views(written(tmp_path, SECTION.replace(part, wrong, 1)))
    assert f"my.yaml{message}" in str(caught.value)


def test_a_mistake_in_the_file_that_the_settings_name_is_reported_with_both_files(tmp_path: Path) -> None:
    written(tmp_path, SECTION.replace("INT64", "INT4"), "shop.yaml")
    path = written(tmp_path, MODELS + "features: shop.yaml\n")
    for load in (load_settings, load_views):
        with pytest.raises(SettingsError) as caught:
            load(path)
        (mistake,) = caught.value.mistakes
        assert mistake.startswith(f"{path}:6: features: the file named here, {tmp_path / 'shop.yaml'}:9: views.")


@pytest.mark.parametrize("text", ["", "[]", "features: no_such.yaml\n", "features: 3\n", "entities: {}\n"])
def test_a_file_without_views_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"my\.yaml"):
        load_views(written(tmp_path, text))


def test_views_of_one_entity_with_a_feature_of_the_same_name_are_refused(tmp_path: Path) -> None:
    twice = SECTION + "  more:\n    entity: user\n    features: {age: {type: BOOL}}\n"
    with pytest.raises(SettingsError, match=r"more: user_stats has a feature 'age' of the entity 'user' already"):
        load_views(written(tmp_path, twice))


BOUND = """\
models:
  - name: churn
    factory: shop.models:Churn
    inputs:
      - {name: x, datatype: FP32, shape: [-1, 2]}
      - {name: country, datatype: BYTES, shape: [-1, 1]}
    outputs: [{name: y, datatype: FP32, shape: [-1, 1]}]
    features:
      entity_input: user_id
      inputs: {x: [user_stats.age, user_stats.spend], country: [user_stats.country]}
features: shop.yaml
"""


def test_a_model_may_get_features_as_inputs(tmp_path: Path) -> None:
    written(tmp_path, SECTION, "shop.yaml")
    settings = Settings.model_validate(load_settings(written(tmp_path, BOUND)).as_mapping())
    told = bound_features(settings, "churn")
    assert told is not None
    (spec,) = settings.model_specs()
    assert [(tensor.name, tensor.datatype, tensor.shape) for tensor in shown(spec, told).inputs] == [
        ("user_id", "BYTES", (-1, 1))
    ]


@pytest.mark.parametrize(
    ("part", "wrong", "message"),
    [
        ("features: shop.yaml\n", "", ":8: models[0].features: the settings declare no views under `features`"),
        ("user_stats.age", "user_stats.size", ":10: models[0].features.inputs.x[0]: user_stats has no feature 'size'"),
        ("x: [user", "z: [user", ":10: models[0].features.inputs.z: the model has no such input; it has x, country"),
        ("[-1, 2]", "[-1, 3]", ":10: models[0].features.inputs.x: lists 2 features; the input's shape is [-1, 3]"),
        ("FP32, shape: [-1, 2]", "INT64, shape: [-1, 2]", ":10: models[0].features.inputs.x: the input is INT64"),
        (
            "country: [user_stats.country]",
            "country: [user_stats.age]",
            "country[0]: the feature is INT64, the input BYTES",
        ),
        (
            "entity_input: user_id",
            "entity_input: x",
            ":9: models[0].features.entity_input: 'x' is an input of the model",
        ),
        ("factory:", "decoupled: true\n    factory:", "models[0].features: fill inputs of models without state"),
    ],
)
def test_a_mistake_in_what_a_model_gets_is_reported_with_its_line(
    part: str, wrong: str, message: str, tmp_path: Path
) -> None:
    assert part in BOUND
    written(tmp_path, SECTION, "shop.yaml")
    with pytest.raises(SettingsError) as caught:
        load_settings(written(tmp_path, BOUND.replace(part, wrong, 1)))
    assert message in str(caught.value)
