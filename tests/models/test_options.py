"""Options of a factory: paths are relative to the settings, and values are removed from texts that others may read."""

from pathlib import Path
from typing import Any

import pytest

from models.loading import load_model
from models.options import with_paths, without_values
from models.spec import ModelSpec, TensorSpec


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("weights.pt", "{folder}/weights.pt"),
        ("data/words.txt", "{folder}/data/words.txt"),
        ("data/checkpoint", "{folder}/data/checkpoint"),
        ("./to-be-made.pt", "{folder}/to-be-made.pt"),
        ("./data", "{folder}/data"),
        ("../elsewhere.pt", "{folder}/../elsewhere.pt"),
        (["weights.pt", {"and": "weights.pt"}], ["{folder}/weights.pt", {"and": "{folder}/weights.pt"}]),
        ("data", "data"),
        ("not-there.pt", "not-there.pt"),
        ("bert/base", "bert/base"),
        (".", "."),
        ("..", ".."),
        ("/", "/"),
        ("", ""),
        ("a\0.b", "a\0.b"),
        ("x." * 3000, "x." * 3000),
        ("https://example.com/weights.pt", "https://example.com/weights.pt"),
        (3, 3),
        (None, None),
    ],
)
def test_a_text_that_names_a_file_beside_the_settings_is_a_path(value: Any, found: Any, tmp_path: Path) -> None:
    (tmp_path / "data" / "checkpoint").mkdir(parents=True)
    for name in ("weights.pt", "data/words.txt"):
        (tmp_path / name).write_text("")
    assert with_paths({"option": value}, str(tmp_path)) == {"option": _in(found, tmp_path)}
    assert with_paths({"option": value}, None) == {"option": value}


def _in(value: Any, folder: Path) -> Any:
    if isinstance(value, str):
        return value.replace("{folder}", str(folder))
    if isinstance(value, list):
        return [_in(item, folder) for item in value]
    return {key: _in(item, folder) for key, item in value.items()} if isinstance(value, dict) else value


def test_an_absolute_path_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_text("")
    value = {"file": str(tmp_path / "weights.pt")}
    assert with_paths(value, str(tmp_path)) == value


class Reading:
    """A factory that opens the given file."""

    device = "cpu"

    def __init__(self, spec: ModelSpec, words: str) -> None:
        self.words = Path(words).read_text()

    def _nothing(self, *_: object) -> None: ...

    prepare = collate = forward = split = sample = lengths = close = _nothing


def test_the_factory_is_given_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings" / "words.txt").write_text("ours")
    (tmp_path / "words.txt").write_text("of the working directory")
    monkeypatch.chdir(tmp_path)
    x = TensorSpec(name="x", datatype="FP32", shape=(-1, 1))
    spec = ModelSpec(
        name="m",
        factory=f"{__name__}:Reading",
        options={"words": "words.txt"},
        inputs=(x,),
        outputs=(x,),
        folder=str(tmp_path / "settings"),
    )
    assert load_model(spec).words == "ours"  # type: ignore[attr-defined]


SECRET = "s3cr3t-tok/en"


@pytest.mark.parametrize(
    ("options", "text", "public"),
    [
        ({"token": SECRET}, f"401 for {SECRET}!", "401 for <options.token>!"),
        ({"store": {"keys": ["one", SECRET]}}, f"bad key '{SECRET}'", "bad key '<options.store.keys[1]>'"),
        ({"pin": 90210}, "no 90210, but 902101 and v90210", "no <options.pin>, but 902101 and v90210"),
        ({"token": SECRET}, f"key_{SECRET}2", "key_<options.token>2"),
        ({"quoted": "it's\n"}, repr("it's\n"), '"<options.quoted>"'),
        ({"a": SECRET, "b": f"{SECRET}/more"}, f"{SECRET}/more, {SECRET}", "<options.b>, <options.a>"),
        ({"depth": 2, "kind": "mlp"}, "2 layers of mlp", "2 layers of mlp"),
        ({}, "as it is", "as it is"),
        ({"on": True, "off": None}, "True, None", "True, None"),
    ],
)
def test_a_text_is_shown_without_the_values_of_options(options: dict[str, Any], text: str, public: str) -> None:
    assert without_values(text, options) == public


def test_a_path_that_counts_from_the_settings_is_hidden_as_a_whole(tmp_path: Path) -> None:
    text = f"No such file or directory: '{tmp_path}/weights.pt'"
    assert without_values(text, {"file": "./weights.pt"}, str(tmp_path)) == (
        "No such file or directory: '<options.file>'"
    )
