"""Faster variants of computing a module: another layout, another precision, compiled. Each can be undone."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from models.base import Tensors
from models.pytorch.execution import Compute, named
from models.pytorch.tensors import from_numpy
from models.spec import ModelSpec

Backend = str | Callable[..., Any]

CPUINFO = Path("/proc/cpuinfo")
WITH_WEIGHTS = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip


class Unsuitable(Exception):
    """The variant cannot be used here. The text gives the reason."""


class Variant(Protocol):
    """A variant of computing a module."""

    name: str

    def wrap(self, compute: Compute) -> Compute:
        """Returns the function to call instead of `compute`. May change the module. Raises `Unsuitable`."""
        ...

    def undo(self) -> None:
        """Restores the module, also after `wrap` has raised."""
        ...


def cpu_has_bf16(cpuinfo: Path = CPUINFO) -> bool:
    """Returns whether the CPU has bf16 instructions (AVX-512 BF16 or AMX); without them, bf16 is emulated and slow."""
    with suppress(OSError):
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("flags"):
                return not {"avx512_bf16", "amx_bf16"}.isdisjoint(line.split())
    return False


def has_bf16(kind: str) -> bool:
    """Returns whether a type of device (torch's name: `cpu`, `cuda`) has bf16 instructions."""
    return cpu_has_bf16() if kind == "cpu" else torch.cuda.is_bf16_supported(including_emulation=False)


class ChannelsLast:
    """Convolutions in the memory layout that tensor cores and oneDNN prefer. Weights are converted; activations take
    their layout."""

    name = "channels last"

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def wrap(self, compute: Compute) -> Compute:
        self._module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return compute

    def undo(self) -> None:
        self._module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


class Bfloat16:
    """Autocast to bf16, with the weights of linear layers and convolutions cast once. Sensitive operations (norms,
    softmax, sums) stay in float32, and the outputs keep their types.

    plain: outputs of the unchanged module.
    is_supported: returns whether a type of device has bf16 instructions.
    """

    name = "bf16"

    def __init__(
        self,
        module: nn.Module,
        output_names: Sequence[str],
        plain: Tensors,
        is_supported: Callable[[str], bool] = has_bf16,
    ) -> None:
        self._is_supported = is_supported
        self._module = module
        self._output_names = output_names
        self._types = {name: from_numpy(array[:0].copy()).dtype for name, array in plain.items()}
        self._kept: list[tuple[nn.Module, str, nn.Parameter]] = []

    def wrap(self, compute: Compute) -> Compute:
        kind = next((parameter.device.type for parameter in self._module.parameters()), "cpu")
        if not self._is_supported(kind):
            raise Unsuitable(f"this {'CPU' if kind == 'cpu' else 'GPU'} has no instructions for it")
        for layer in self._module.modules():
            if isinstance(layer, WITH_WEIGHTS):
                for name, parameter in list(layer.named_parameters(recurse=False)):
                    if parameter.dtype == torch.float32:
                        self._kept.append((layer, name, parameter))
                        setattr(layer, name, nn.Parameter(parameter.to(torch.bfloat16), requires_grad=False))

        def with_bf16(*inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            with torch.autocast(kind, dtype=torch.bfloat16, cache_enabled=False):
                results = named(compute(*inputs), self._output_names)
            types = self._types
            return {name: result.to(types.get(name, result.dtype)) for name, result in results.items()}

        return with_bf16

    def undo(self) -> None:
        for layer, name, parameter in self._kept:
            setattr(layer, name, parameter)
        self._kept.clear()


class Compiled:
    """`torch.compile`, for any number of rows. Once frozen, shapes that are not compiled yet are computed eagerly, so
    that no request waits for the compiler."""

    name = "torch.compile"

    def __init__(self, backend: Backend = "inductor") -> None:
        self._backend = backend
        self._frozen = False
        self._compiled: Any = None

    def wrap(self, compute: Compute) -> Compute:
        self._compiled = torch.compile(compute, dynamic=True, backend=self._backend)
        return self._call

    def freeze(self) -> None:
        self._frozen = True

    def undo(self) -> None:
        """Drops the compiled module. `torch.compiler.reset()` would also drop the code of other lanes, which would then
        run eagerly."""
        self._compiled = None

    def _call(self, *inputs: torch.Tensor) -> Any:
        if not self._frozen:
            return self._compiled(*inputs)
        with torch.compiler.set_stance("eager_on_recompile"):
            return self._compiled(*inputs)


def variants_for(
    spec: ModelSpec,
    module: nn.Module,
    plain: Tensors,
    *,
    supports_bf16: Callable[[str], bool] = has_bf16,
    backend: Backend = "inductor",
) -> list[Variant]:
    """Returns the variants that the settings of the model allow, in the order in which they are tried. plain: outputs
    of the unchanged module."""
    variants: list[Variant] = []
    if spec.channels_last:
        variants.append(ChannelsLast(module))
    if spec.precision == "bf16":
        variants.append(Bfloat16(module, [tensor.name for tensor in spec.outputs], plain, supports_bf16))
    if spec.execution == "compiled":
        variants.append(Compiled(backend))
    return variants
