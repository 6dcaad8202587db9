"""The four steps of models/README.md work as they are written."""

import re
from pathlib import Path

import pytest
import yaml

import models
from models.loading import load_model
from models.spec import ModelSpec, Resources, TensorSpec
from models.testing import assert_batched_equals_unbatched

README = (Path(models.__file__).parent / "README.md").read_text()


def block(language: str) -> str:
    """Returns the first code block in that language."""
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found, language
    return found.group(1)


def test_the_model_of_the_readme_can_be_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "ranker.py").write_text(block("python"))
    monkeypatch.syspath_prepend(str(tmp_path))
    (fields,) = yaml.safe_load(block("yaml"))["models"]
    for kind in ("inputs", "outputs"):
        fields[kind] = tuple(TensorSpec(**tensor | {"shape": tuple(tensor["shape"])}) for tensor in fields[kind])
    fields["resources"] = Resources(**fields["resources"])
    assert_batched_equals_unbatched(load_model(ModelSpec(**fields)))


def test_every_file_it_names_exists() -> None:
    for name in re.findall(r"`(\w+\.(?:py|txt))`", README):
        assert (Path(models.__file__).parent / name).exists(), name
