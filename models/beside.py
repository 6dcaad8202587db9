"""Imports a user's code from the folder of the settings without name conflicts.

The folder is appended to Python's path, and so is the folder in which the server was started: a `json.py` in them does
not hide the one of the standard library. If a name in the folder also exists elsewhere (`models` is a package of
Headway too), the whole project is imported under a private package. Inside it, the project's modules find their own
folder first, as they do when one of them is run as a script.
"""

import builtins
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import abc, import_module
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

HOUSE = ("models", "serving", "loadtest")  # our own packages
OURS = Path(__file__).resolve().parents[1]  # the folder that holds them
PRIVATE = "beside_the_settings_"

_projects: dict[Path, "Project"] = {}


def import_beside(module_name: str, folder: str | None) -> ModuleType:
    """Imports the module of this name, from the project in the folder if it has one, else from Python's path. Raises
    what the import raises; a ModuleNotFoundError names the module as the user wrote it."""
    if folder is None or not Path(folder).is_dir():  # another machine of a cluster may lack the folder
        return import_module(module_name)
    project = _project(Path(folder).resolve())
    for place in (str(project.folder), os.getcwd()):
        if place not in sys.path:
            sys.path.append(place)
    if not (project.is_private and project.has(module_name)):
        return import_module(module_name)
    try:
        return import_module(f"{project.package}.{module_name}")
    except ModuleNotFoundError as error:
        prefix = f"{project.package}."
        if error.name and error.name.startswith(prefix):
            name = error.name.removeprefix(prefix)
            raise ModuleNotFoundError(f"No module named {name!r}", name=name) from error
        raise


def _project(folder: Path) -> "Project":
    if folder not in _projects:
        _projects[folder] = Project(folder, f"{PRIVATE}{len(_projects)}")
    return _projects[folder]


class Project:
    """A folder with a user's code.

    package: the private package that represents it.
    is_private: whether its modules are imported through that package.
    """

    def __init__(self, folder: Path, package: str) -> None:
        self.folder = folder
        self.package = package
        self._names = frozenset(_names(folder))
        self.is_private = not _is_headway(folder) and any(_is_found_elsewhere(name, folder) for name in self._names)
        if self.is_private:
            root = ModuleType(package)
            root.__path__ = [str(folder)]
            sys.modules[package] = root
            sys.meta_path.insert(0, Finder(self))
            for name in self._names.intersection(HOUSE):
                self._lend(name)

    def has(self, name: str) -> bool:
        """Returns whether a module of this name belongs to the project. If Headway has a package of the same name, a
        module that the project lacks (for example `models.base`) belongs to Headway."""
        top, *_ = name.split(".")
        return top in self._names and (top not in HOUSE or _is_in(self.folder, name))

    def import_(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """Replaces `__import__` for the project's modules."""
        if level or not self.has(name):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        found = builtins.__import__(f"{self.package}.{name}", globals, locals, fromlist or (), 0)
        return found if fromlist else sys.modules[f"{self.package}.{name.partition('.')[0]}"]

    def _lend(self, name: str) -> None:
        """Lets Headway's package find missing attributes in the project's package of the same name: a pickle of a whole
        module names its class `models.Net`."""

        def lent(attribute: str) -> Any:
            # Headway's own submodules are never looked up in the project, even before they are imported.
            if attribute.startswith("__") or _is_in(OURS, f"{name}.{attribute}"):
                raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
            return getattr(import_module(f"{self.package}.{name}"), attribute)

        import_module(name).__getattr__ = lent  # type: ignore[method-assign]


class Finder:
    """An entry of `sys.meta_path` that finds the modules of a project's private package. It also finds them by their
    public names (in pickles and the project's own settings) if Headway has no module of that name."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        top, separator, _ = fullname.partition(".")
        if separator and top in HOUSE and self._project.has(fullname) and not _is_in(OURS, fullname):
            return ModuleSpec(fullname, AliasLoader(self._project))
        if top != self._project.package:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = Loader(self._project, fullname, spec.loader.path)
        return spec


class Loader(SourceFileLoader):
    """Sets the project's `__import__` in a module's builtins, where Python looks it up."""

    def __init__(self, project: Project, fullname: str, path: str) -> None:
        super().__init__(fullname, path)
        self._project = project

    def exec_module(self, module: ModuleType) -> None:
        own: dict[str, Any] = {**vars(builtins), "__import__": self._project.import_}
        module.__builtins__ = own  # type: ignore[attr-defined]
        super().exec_module(module)


class AliasLoader(abc.Loader):
    """A loader that returns the module already imported under its private name."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(f"{self._project.package}.{spec.name}")
        self._own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._own_spec  # the import has just replaced it


def _is_in(folder: Path, name: str) -> bool:
    path = folder.joinpath(*name.split("."))
    return path.with_name(f"{path.name}.py").is_file() or path.is_dir()


def _names(folder: Path) -> Iterator[str]:
    """Yields the names that can be imported from the folder. A subfolder counts if it holds Python files; a folder of
    weights does not."""
    for path in folder.iterdir():
        if path.suffix == ".py" and path.stem.isidentifier():
            yield path.stem
        elif path.name.isidentifier() and path.is_dir():
            patterns = ("*.py", "*/*.py") if path.name in HOUSE else ("*.py",)  # Python imports other packages itself
            if any(next(path.glob(pattern), None) for pattern in patterns):
                yield path.name


def _is_found_elsewhere(name: str, folder: Path) -> bool:
    try:
        spec = find_spec(name)
    except ValueError:  # a module without a spec: `__main__`
        return name in sys.modules
    if spec is None:
        return False
    places = [spec.origin] if spec.has_location and spec.origin else list(spec.submodule_search_locations or ())
    own = {folder / f"{name}.py", folder / name / "__init__.py", folder / name}
    return not any(Path(place).resolve() in own for place in places)


def _is_headway(folder: Path) -> bool:
    """Returns whether the folder is a copy of Headway; its `models` is then Headway's own package."""
    return (folder / "models" / "loading.py").is_file() and (folder / "serving" / "config.py").is_file()
