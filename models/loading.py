"""Loads the `Model` that a `ModelSpec` describes. Factories are import strings, so torch is imported only if a model
uses it."""

import inspect
import sys
from collections.abc import Callable
from typing import Any, cast

from models.base import GeneratingModel, Model
from models.beside import import_beside
from models.generating import PlainGenerating
from models.options import with_paths
from models.signals import signals_left_alone
from models.spec import ModelSpec

MODEL_METHODS = ("prepare", "collate", "forward", "split", "sample", "lengths", "close")


class ModelNotLoadable(Exception):
    """The factory cannot be found, does not take its options, or returns an object that cannot be served."""


def load_models(spec: ModelSpec) -> list[Model]:
    """Loads one model per lane: one lane for each whole GPU that the spec asks for, or a single lane on the CPU."""
    first = load_model(spec)
    count = int(spec.resources.gpus) if first.device.startswith("cuda") else 1
    return [first, *(load_model(spec, lane_index) for lane_index in range(1, count))]


def load_model(spec: ModelSpec, lane_index: int = 0) -> Model:
    """Imports the factory, calls it with the spec's options, and moves the result to its device.

    A factory with a parameter named `spec` is also given the spec; one with a parameter named `lane_index`, the index
    of its lane in this process. Must be called in the thread that will run `forward`. Raises `ModelNotLoadable`.
    """
    with signals_left_alone(spec.name):
        made = _make(find_factory(spec.factory, spec.folder), spec, lane_index)
    if _is_made_of_torch(made):
        from models.pytorch.runner import load_module

        return load_module(spec, cast(Any, made), lane_index=lane_index)
    missing = [method for method in MODEL_METHODS if not callable(getattr(made, method, None))]
    if missing:
        raise ModelNotLoadable(
            f"{spec.factory} made a {type(made).__name__}: neither a torch.nn.Module nor a models.base.Model"
            f" (it lacks {', '.join(missing)})"
        )
    return cast(Model, made)


def load_generating(spec: ModelSpec) -> GeneratingModel:
    """Loads a model that generates (`decoupled: true`): the object from the factory must have a method `generate`.
    Raises `ModelNotLoadable`."""
    with signals_left_alone(spec.name):
        made = _make(find_factory(spec.factory, spec.folder), spec)
    if not callable(getattr(made, "generate", None)):
        raise ModelNotLoadable(
            f"{spec.factory} made a {type(made).__name__} without a method `generate`, which `decoupled: true` needs"
        )
    if _is_made_of_torch(made):
        from models.pytorch.generating import load_generating_module

        return load_generating_module(spec, cast(Any, made))
    return PlainGenerating(spec, made)


def find_factory(import_string: str, folder: str | None = None) -> Callable[..., object]:
    """Returns the object that `package.module:attribute` names. Raises `ModelNotLoadable`.

    folder: the folder of the settings, which may contain the module.
    """
    module_name, _, attribute = import_string.partition(":")
    try:
        factory: Any = import_beside(module_name, folder)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise ModelNotLoadable(
                f"{import_string}: no module is named {error.name!r}, neither beside the settings nor on PYTHONPATH"
            ) from error
        raise  # the module exists, but one that it imports does not; the original message names it
    for part in attribute.split("."):
        try:
            factory = getattr(factory, part)
        except AttributeError as error:
            raise ModelNotLoadable(f"{import_string}: {module_name} has no {attribute!r}") from error
    if not callable(factory):
        raise ModelNotLoadable(f"{import_string}: a {type(factory).__name__} cannot be called to make a model")
    return cast(Callable[..., object], factory)


def _make(factory: Callable[..., object], spec: ModelSpec, lane_index: int = 0) -> object:
    options = with_paths(spec.options, spec.folder)
    try:
        signature = inspect.signature(factory)
    except ValueError:  # written in C: its parameters are unknown
        return factory(**options)
    for name, value in (("spec", spec), ("lane_index", lane_index)):
        if name in signature.parameters:
            options.setdefault(name, value)
    try:
        signature.bind(**options)
    except TypeError as error:
        # Values of options are left out, because clients see this message too.
        named, taken = ", ".join(spec.options) or "none", ", ".join(signature.parameters) or "none"
        raise ModelNotLoadable(
            f"{spec.factory} does not take the options {named}: {error}; its parameters are: {taken}"
        ) from error
    return factory(**options)


def _is_made_of_torch(made: object) -> bool:
    if "torch" not in sys.modules:  # without torch, the object cannot be a module
        return False
    from models.pytorch.kinds import is_served

    return is_served(made)
