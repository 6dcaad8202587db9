"""Where a module runs and with how many threads: decided once, when it is loaded, and said in the log."""

import logging
import math
import os
from contextlib import suppress

import torch

from models.cores import usable_cores
from models.pytorch.cuda import CudaDevice, Device
from models.pytorch.kinds import frozen
from models.spec import ModelSpec, Resources

log = logging.getLogger(__name__)


class DoesNotFit(Exception):
    """The weights do not fit into what is free of the GPU's memory. The text says how much is missing."""


def choose_device(resources: Resources, lane_index: int = 0, *, cuda_devices: int | None = None) -> torch.device:
    """The GPU of this lane, of those that the process may see, if the model asked for one; else the CPU. A missing GPU
    is loudly said."""
    if resources.gpus <= 0:
        return torch.device("cpu")
    # As the driver numbers them, and with it Ray, which hands them out, and our gauges. CUDA's own order is by speed.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    if cuda_devices is None:
        cuda_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if lane_index < cuda_devices:
        return torch.device("cuda", lane_index)
    if lane_index > 0:
        raise DoesNotFit(f"asked for {resources.gpus:g} GPUs, but torch {torch.__version__} sees {cuda_devices}")
    log.warning(
        "asked for %g GPU(s), but torch %s sees none: serving on the CPU instead, which may be many times slower",
        resources.gpus,
        torch.__version__,
    )
    return torch.device("cpu")


def device_for(spec: ModelSpec, lane_index: int = 0) -> Device | None:
    """The device that the spec asks for; None for the CPU."""
    home = choose_device(spec.resources, lane_index)
    return CudaDevice(home) if home.type == "cuda" else None


def place(spec: ModelSpec, module: torch.nn.Module, device: Device | None) -> tuple[torch.nn.Module, int]:
    """The module where it is to compute, ready to; and how many threads it has there."""
    # On a GPU the CPU threads only launch kernels; a pool of them would fight with the event loop.
    threads = 1 if device and device.home.type == "cuda" else thread_count(spec.resources.cpus, usable_cores())
    set_threads(threads)
    if device:
        module = move(spec.name, module, spec.resources, device)
    return frozen(module), threads


def move(name: str, module: torch.nn.Module, resources: Resources, device: Device) -> torch.nn.Module:
    """The module with its weights on the device. Raises `DoesNotFit` before any is copied if they cannot all be.

    A model that asked for a part of a GPU also gets no more than that part of its memory, so that what it runs out of
    is its own share."""
    free, total = device.memory()
    share = resources.gpus if 0 < resources.gpus < 1 else 1.0
    check_room(name, weights_bytes(module), free, total, share, device.name)
    if share < 1:
        device.limit(share)
    module = module.to(device.home)
    device.settle()
    return module


def check_room(name: str, needed: int, free: int, total: int, share: float, device: str) -> None:
    """share: of the memory, that the model may use. Only the weights are known before the model has run."""
    if needed > free:
        raise DoesNotFit(
            f"model {name}: its weights take {needed:,} bytes, and {free:,} of {total:,} are free on {device}. "
            "Unload another model, or give this one a GPU of its own"
        )
    if needed > share * total:
        raise DoesNotFit(
            f"model {name}: its weights take {needed:,} bytes, and resources.gpus: {share:g} grants it "
            f"{int(share * total):,} of the {total:,} of {device}. Raise resources.gpus"
        )


def weights_bytes(module: torch.nn.Module) -> int:
    """Of all parameters and buffers; what two layers share counts once."""
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in (*module.parameters(), *module.buffers())
    }
    return sum(storages.values())


def thread_count(asked_cpus: float, usable_cpus: float) -> int:
    """Whole threads for the intra-op pool: what was asked for, within what there is, and at least one."""
    return max(1, math.floor(min(asked_cpus, usable_cpus)))


def set_threads(threads: int) -> None:
    """More threads than cores make each batch wait for the slowest: fewer is safe, more is not."""
    torch.set_num_threads(threads)
    with suppress(RuntimeError):  # torch allows this once per process, before its first parallel work
        torch.set_num_interop_threads(1)  # one batch at a time: nothing to run beside it
