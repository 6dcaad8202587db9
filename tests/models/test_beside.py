"""Imports of a user's project beside the settings: names of the project, of Headway and of the standard library do not
conflict."""

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import loadtest
import models.base
import models.spec
import serving
from models import beside
from models.beside import PRIVATE, import_beside
from models.loading import ModelNotLoadable, find_factory


@pytest.fixture(autouse=True)
def _path_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield
    for package in (models, loadtest, serving):
        package.__dict__.pop("__getattr__", None)
    models.__dict__.pop("nets", None)
    for name in set(sys.modules) - before:
        if name.startswith((PRIVATE, "shop", "helper", "models.nets")):
            del sys.modules[name]


def project(folder: Path, **files: str) -> str:
    """Writes the files of a project, by their path with `__` for `/`."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/').replace('INIT', '__init__')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
    return str(folder)


def made(folder: str, factory: str) -> Any:
    return find_factory(factory, folder)()


def test_a_module_beside_the_settings_is_found(tmp_path: Path) -> None:
    folder = project(tmp_path, shop__ranker="def make():\n    return 'ranker'\n")
    assert made(folder, "shop.ranker:make") == "ranker"


def test_a_models_py_beside_the_settings_does_not_replace_headways_models(tmp_path: Path) -> None:
    folder = project(
        tmp_path,
        models="""
            from models.base import InvalidInput
            class Scorer:
                error = InvalidInput
            """,
    )
    scorer = made(folder, "models:Scorer")
    assert scorer.error is models.base.InvalidInput
    assert sys.modules["models"] is models
    assert find_factory("models.reference:noop", folder).__module__ == "models.reference"


@pytest.mark.parametrize("has_init", [True, False], ids=["a package", "a folder without __init__"])
def test_a_package_models_beside_the_settings_is_the_users_with_all_its_ways_to_import(
    tmp_path: Path, has_init: bool
) -> None:
    folder = project(
        tmp_path,
        models__scorer="""
            import models.layers
            import models.layers as again
            import models.base as base
            from models import layers
            from models.layers import WIDTH
            from . import layers as relative
            from .layers import WIDTH as near
            from .deep.inner import up
            from models.spec import ModelSpec

            def make():
                from models.layers import WIDTH as late
                assert models.layers is again is layers is relative
                return [WIDTH, near, late, up, base.MINE, ModelSpec.__module__]
            """,
        models__layers="WIDTH = 7\n",
        models__base="MINE = 'my base'\n",
        models__deep__inner="from ..layers import WIDTH as up\n",
    )
    if has_init:
        (tmp_path / "models" / "__init__.py").write_text("")
    assert made(folder, "models.scorer:make") == [7, 7, 7, 7, "my base", "models.spec"]
    assert not hasattr(models.base, "MINE")
    assert "models.layers" not in sys.modules


@pytest.mark.parametrize("name", ["serving", "loadtest", "json", "queue", "types", "numpy"])
def test_other_names_that_something_else_has_too_are_the_projects_inside_the_project(tmp_path: Path, name: str) -> None:
    theirs = __import__(name)
    folder = project(tmp_path, **{name: "MINE = 'mine'\n"}, shop=f"from {name} import MINE\ndef make(): return MINE\n")
    assert made(folder, "shop:make") == "mine"
    assert __import__(name) is theirs
    assert sys.modules[name] is theirs


def test_a_factory_in_a_file_that_is_named_as_a_module_of_python_is_found(tmp_path: Path) -> None:
    assert made(project(tmp_path, queue="def make():\n    return 'mine'\n"), "queue:make") == "mine"


def test_the_folder_comes_after_the_standard_library(tmp_path: Path) -> None:
    """Runs in a process that has imported nothing yet."""
    project(tmp_path, colorsys="raise RuntimeError('not this one')\n", shop="def make(): return 'made'\n")
    script = f"""
        from models.loading import find_factory
        print(find_factory('shop:make', {str(tmp_path)!r})())
        import colorsys
        print(colorsys.rgb_to_hsv(0, 0, 0))
        """
    done = subprocess.run([sys.executable, "-c", dedent(script)], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["made", "(0.0, 0.0, 0)"]


def test_a_folder_of_weights_named_models_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "net.pt").write_bytes(b"")
    folder = project(tmp_path, shop__net="def make(): return __name__\n")
    assert made(folder, "shop.net:make") == "shop.net"


def test_a_copy_of_headway_is_not_taken_for_a_users_project(tmp_path: Path) -> None:
    folder = project(
        tmp_path, models__INIT="", models__loading="", models__mlp="raise RuntimeError", serving__config=""
    )
    assert find_factory("models.mlp:MLP", folder).__module__ == "models.mlp"


def test_two_projects_with_the_same_names_are_kept_apart(tmp_path: Path) -> None:
    folders = [project(tmp_path / name, models=f"def make(): return {name!r}\n") for name in ("first", "second")]
    assert [made(folder, "models:make") for folder in folders] == ["first", "second"]


def test_a_whole_model_that_was_pickled_is_found_under_the_name_it_had(tmp_path: Path) -> None:
    folder = project(
        tmp_path,
        models="""
            import pickle
            class Net:
                pass
            def make():
                return pickle.loads(b"cmodels\\nNet\\n)\\x81.")
            """,
    )
    found = made(folder, "models:make")
    assert type(found) is find_factory("models:Net", folder)
    assert type(pickle.loads(pickle.dumps(found))) is type(found)
    with pytest.raises(AttributeError, match="Other"):
        models.Other  # type: ignore[attr-defined]  # noqa: B018


def test_a_submodule_of_headway_is_never_taken_from_the_users_package_of_the_same_name(
    tmp_path: Path,
) -> None:
    project(tmp_path, loadtest="recording = arrivals = 'theirs'\n", shop="def make(): ...\n")
    script = f"""
        from models.loading import find_factory
        find_factory('shop:make', {str(tmp_path)!r})
        from loadtest import recording
        import loadtest.arrivals
        print(recording.__name__, loadtest.arrivals.__name__)
        """
    done = subprocess.run([sys.executable, "-c", dedent(script)], capture_output=True, text=True, check=True)
    assert done.stdout == "loadtest.recording loadtest.arrivals\n"


def test_a_users_module_named_in_a_text_is_found_if_headway_has_none_of_that_name(tmp_path: Path) -> None:
    folder = project(
        tmp_path,
        models__nets__deep="class Net: ...\n",
        models__nets__scorer="""
            import pickle
            from importlib import import_module
            from models.nets.deep import Net
            def make():
                assert import_module("models.nets.deep").Net is Net
                return type(pickle.loads(b"cmodels.nets.deep\\nNet\\n)\\x81.")) is Net
            """,
    )
    assert made(folder, "models.nets.scorer:make")
    assert find_factory("models.nets.deep:Net", folder).__module__.startswith(PRIVATE)
    assert import_beside("models.spec", folder) is models.spec


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        ("models.missing:make", "no module is named 'models.missing'"),
        ("models:missing", "models has no 'missing'"),
        ("shop.missing:make", "no module is named 'shop.missing'"),
        ("nothing:make", "no module is named 'nothing', neither beside the settings nor on PYTHONPATH"),
    ],
)
def test_a_missing_module_is_reported_by_the_name_the_user_gave_it(tmp_path: Path, factory: str, expected: str) -> None:
    folder = project(tmp_path, models__INIT="", shop__INIT="")
    with pytest.raises(ModelNotLoadable, match=expected):
        find_factory(factory, folder)


def test_an_import_that_fails_inside_the_project_is_reported_unchanged(tmp_path: Path) -> None:
    folder = project(tmp_path, models="import shop.missing\n", shop__INIT="", helper="import no_such_module\n")
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'shop\.missing'$"):
        find_factory("models:make", folder)
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'no_such_module'$"):
        find_factory("helper:make", folder)


def test_a_module_that_failed_to_import_is_tried_again(tmp_path: Path) -> None:
    folder = project(tmp_path, models="raise RuntimeError('no licence')\n")
    with pytest.raises(RuntimeError, match="no licence"):
        import_beside("models", folder)
    with pytest.raises(RuntimeError, match="no licence"):
        import_beside("models", folder)


@pytest.mark.parametrize("folder", [None, "/there/is/no/such/folder"])
def test_without_a_folder_python_s_path_decides(folder: str | None) -> None:
    assert import_beside("models.spec", folder) is models.spec


def test_a_checkout_of_headway_is_no_project_beside_it(tmp_path: Path) -> None:
    assert beside._is_headway(Path(beside.__file__).parents[1])
    assert not beside._is_headway(tmp_path)
