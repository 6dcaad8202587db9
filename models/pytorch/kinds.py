"""Turns the PyTorch objects that factories return (modules, TorchScript, exported programs, lazy modules) into frozen
modules."""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from models.pytorch.checking import SpecMismatch

log = logging.getLogger(__name__)

Made = nn.Module | torch.export.ExportedProgram


def is_served(made: object) -> bool:
    """Returns whether the object can be loaded as a module."""
    return isinstance(made, nn.Module | torch.export.ExportedProgram)


def as_module(made: Made, home: torch.device) -> nn.Module:
    """Returns the object as a module. The code of an exported program names devices, so it is moved to the device
    first."""
    if isinstance(made, nn.Module):
        return made
    if home.type != "cpu":
        from torch.export.passes import move_to_device_pass

        made = move_to_device_pass(made, home)
    return made.module()


def frozen(module: nn.Module) -> nn.Module:
    """Sets the module to evaluation mode and its weights to require no gradients, and returns it."""
    with suppress(NotImplementedError):  # an exported program stays in the mode in which it was exported
        module.eval()
    for parameter in module.parameters():  # not `requires_grad_` of the module, which TorchScript does not have
        parameter.requires_grad_(False)
    return module


def materialise(name: str, module: nn.Module, inputs: Callable[[], Sequence[torch.Tensor]] | None = None) -> None:
    """Initializes lazy layers by one forward pass, as PyTorch does. Raises `SpecMismatch` for weights without values.

    inputs: the inputs of that pass; None if the model has no forward pass.
    """
    weights = [*module.parameters(), *module.buffers()]
    if any(tensor.is_meta for tensor in weights if not is_lazy(tensor)):
        raise SpecMismatch("weights on the device `meta` have no values: load them in the factory")
    if not any(map(is_lazy, weights)):
        return
    if inputs is None:
        raise SpecMismatch("lazy layers have no weights yet: load them, or call the module once, in the factory")
    log.warning("model %s: its lazy layers get random weights, since the factory loaded none for them", name)
    with torch.no_grad():
        module.eval()(*inputs())
