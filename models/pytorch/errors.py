"""Classifies errors of torch: out of device memory, device lost, or a fault of the model."""

import traceback
from collections.abc import Callable

import torch

from models.base import DeviceLost, OutOfDeviceMemory

OUT_OF_MEMORY = (
    "out of memory",  # CUDA's allocator, and CUDA's own call
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "can't allocate memory",  # the CPU's allocator
)
FROM_THE_DEVICE = (
    "CUDA error",
    "CUDA driver error",
    "Triton Error [CUDA]",  # a kernel that torch.compile made
    "CUBLAS_STATUS",
    "CUDNN_STATUS",
    "cuDNN error",
    "cuFFT error",
    "NCCL error",
)
# Advice for messages that do not explain their cause in Headway: (parts of the message, what to do).
ADVICE = (
    (
        (
            "does not require grad and does not have a grad_fn",
            "Inference tensors cannot be saved for backward",
            "requires_grad=True on inference tensor",
            "update to inference tensor outside InferenceMode",
        ),
        "Modules are served in inference mode and with frozen weights. To use autograd in `forward`, begin it with "
        "`with torch.inference_mode(False), torch.enable_grad():` and work on `x.clone()` of each input",
    ),
    (
        ("Expected all tensors to be on the same device",),
        "Create tensors in `forward` on `x.device`. Tensors frozen into TorchScript are moved only when they are "
        "loaded: give `torch.jit.load` a `map_location`",
    ),
    (
        ("Guard failed",),
        "The program was exported for these sizes only. Export it with a first dimension of any size: "
        "`dynamic_shapes={'x': {0: torch.export.Dim.DYNAMIC}}`, where `x` is the parameter of `forward`",
    ),
)


def translate(error: Exception, device_works: Callable[[], bool]) -> Exception:
    """Returns the error to raise instead: `OutOfDeviceMemory`, `DeviceLost`, the same error, or one with advice.

    device_works: tests the device. It is called only if the message names the device: a sticky CUDA error (a failed
    assert in a kernel, an illegal address) fails every later call of the process, other CUDA errors do not.
    """
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in text for sign in OUT_OF_MEMORY)
    ):
        # The error's frames hold memory of the batch, which its halves need while the error is handled.
        traceback.clear_frames(error.__traceback__)
        return OutOfDeviceMemory(_first_line(error))
    if isinstance(error, RuntimeError) and any(sign in text for sign in FROM_THE_DEVICE) and not device_works():
        return DeviceLost(_first_line(error))
    if isinstance(error, RuntimeError | AssertionError):
        for signs, advice in ADVICE:
            if any(sign in text for sign in signs):
                return RuntimeError(f"{_first_line(error).rstrip('.!')}. {advice}")
    return error


def cuda_works(device: torch.device) -> bool:
    """Returns whether this CUDA device still works. A sticky error is raised again by the next call, but only for its
    device: other devices of this process may still work."""
    try:
        torch.cuda.synchronize(device)
        torch.zeros(1, device=device).add_(1).item()
    except RuntimeError:
        return False
    return True


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
