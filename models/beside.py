"""Imports a user's code from the folder of the settings, without anybody standing in anybody's way.

The folder comes last on Python's path, and so does the one where the server was started: a `json.py` in them hides
nothing from the standard library. Where a name in it is also the name of something else (`models` is Headway's too),
the whole project is imported under a private package, in which its own modules see their folder first, as they do when
one of them is run as a script.
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
    """The module of this name, of the project in the folder if it is there, else from Python's path. Raises what the
    import raises; names in a ModuleNotFoundError are as the user wrote them."""
    if folder is None or not Path(folder).is_dir():  # on another machine of a cluster it may not be there
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

    package: the private package that stands for it.
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
        """Whether a module of this name is the project's. Of a package that is ours too, what it lacks is ours:
        `models.base`, say."""
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
        """`__import__` as the project's modules see it."""
        if level or not self.has(name):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        found = builtins.__import__(f"{self.package}.{name}", globals, locals, fromlist or (), 0)
        return found if fromlist else sys.modules[f"{self.package}.{name.partition('.')[0]}"]

    def _lend(self, name: str) -> None:
        """Pickles of whole modules name classes as `models.Net`: what our package lacks is looked for in theirs."""

        def lent(attribute: str) -> Any:
            # Our own submodules are ours, also before they are imported.
            if attribute.startswith("__") or _is_in(OURS, f"{name}.{attribute}"):
                raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
            return getattr(import_module(f"{self.package}.{name}"), attribute)

        import_module(name).__getattr__ = lent  # type: ignore[method-assign]


class Finder:
    """Finds the modules of a project's private package; also by the names that texts give them (pickles, the project's
    own settings), where our package of that name has none of them. An entry of `sys.meta_path`."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        top, separator, _ = fullname.partition(".")
        if separator and top in HOUSE and self._project.has(fullname) and not _is_in(OURS, fullname):
            return ModuleSpec(fullname, Lender(self._project))
        if top != self._project.package:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = Loader(self._project, fullname, spec.loader.path)
        return spec


class Loader(SourceFileLoader):
    """Gives a module the project's `__import__`: Python asks the module's own builtins for it."""

    def __init__(self, project: Project, fullname: str, path: str) -> None:
        super().__init__(fullname, path)
        self._project = project

    def exec_module(self, module: ModuleType) -> None:
        own: dict[str, Any] = {**vars(builtins), "__import__": self._project.import_}
        module.__builtins__ = own  # type: ignore[attr-defined]
        super().exec_module(module)


class Lender(abc.Loader):
    """Gives the module that the project already knows by its private name."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(f"{self._project.package}.{spec.name}")
        self._own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._own_spec  # which the import has just replaced


def _is_in(folder: Path, name: str) -> bool:
    path = folder.joinpath(*name.split("."))
    return path.with_name(f"{path.name}.py").is_file() or path.is_dir()


def _names(folder: Path) -> Iterator[str]:
    """What can be imported from the folder. A folder in it counts if it holds Python files; one of weights does not."""
    for path in folder.iterdir():
        if path.suffix == ".py" and path.stem.isidentifier():
            yield path.stem
        elif path.name.isidentifier() and path.is_dir():
            patterns = ("*.py", "*/*.py") if path.name in HOUSE else ("*.py",)  # others are searched without us
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
    """Whether the folder is a copy of Headway: its `models` is ours, wherever Headway was installed."""
    return (folder / "models" / "registry.py").is_file() and (folder / "serving" / "config.py").is_file()
