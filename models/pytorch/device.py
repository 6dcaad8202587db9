"""Chooses the device of a module and the number of its threads, once, when the module is loaded."""

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
    """The GPUs or their memory do not suffice for the model. The text names what is needed and what is available."""


def choose_device(resources: Resources, lane_index: int = 0, *, cuda_devices: int | None = None) -> torch.device:
    """Returns the GPU of this lane among those that the process sees, or the CPU if the model asks for no GPU. If there
    is no GPU, logs a warning and returns the CPU. Raises `DoesNotFit` if there are some, but fewer than asked for."""
    if resources.gpus <= 0:
        return torch.device("cpu")
    # Numbers GPUs as the driver, Ray and Headway's gauges do. CUDA's default order is by speed.
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
    """Returns the device that the spec asks for; None for the CPU. Raises `DoesNotFit`."""
    home = choose_device(spec.resources, lane_index)
    return CudaDevice(home) if home.type == "cuda" else None


def place(spec: ModelSpec, module: torch.nn.Module, device: Device | None) -> tuple[torch.nn.Module, int]:
    """Moves the module to its device and freezes it. Returns the module and its number of threads. Raises
    `DoesNotFit`."""
    # On a GPU the CPU threads only launch kernels; a pool of them would compete with the event loop.
    threads = 1 if device and device.home.type == "cuda" else thread_count(spec.resources.cpus, usable_cores())
    set_threads(threads)
    if device:
        module = move(spec.name, module, spec.resources, device)
    return frozen(module), threads


def move(name: str, module: torch.nn.Module, resources: Resources, device: Device) -> torch.nn.Module:
    """Moves the module's weights to the device. Raises `DoesNotFit` before any is copied if they do not all fit.

    A model that asks for a fraction of a GPU is limited to that fraction of its memory, so that it cannot exhaust the
    memory of other models."""
    free, total = device.memory()
    share = resources.gpus if 0 < resources.gpus < 1 else 1.0
    check_room(name, weights_bytes(module), free, total, share, device.name)
    if share < 1:
        device.limit(share)
    module = module.to(device.home)
    device.refresh()
    return module


def check_room(name: str, needed: int, free: int, total: int, share: float, device: str) -> None:
    """Raises `DoesNotFit` if the weights do not fit. Only the weights' size is known before the model has run.

    needed, free, total: in bytes. share: the fraction of the memory that the model may use.
    """
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
    """Returns the bytes of all parameters and buffers; memory shared by two layers counts once."""
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in (*module.parameters(), *module.buffers())
    }
    return sum(storages.values())


def thread_count(asked_cpus: float, usable_cpus: float) -> int:
    """Returns the number of threads of the intra-op pool: as many as asked for, at most the usable CPUs, at least
    one."""
    return max(1, math.floor(min(asked_cpus, usable_cpus)))


def set_threads(threads: int) -> None:
    """Sets the number of torch's threads. With more threads than cores, each batch waits for the slowest thread."""
    torch.set_num_threads(threads)
    with suppress(RuntimeError):  # torch allows this once per process, before its first parallel work
        torch.set_num_interop_threads(1)  # one batch at a time: no operators run in parallel


def computing() -> torch.inference_mode:
    """Returns the context in which a thread runs a model: inference mode, and torch's number of threads.

    torch applies that number to another thread than the one that set it only when asked there, or at the first parallel
    loop. Until then, BLAS would take all cores.
    """
    torch.get_num_threads()
    return torch.inference_mode()
