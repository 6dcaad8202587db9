"""Converts numpy arrays to torch tensors and back, without a copy on the CPU."""

import warnings

import numpy as np
import torch


def from_numpy(array: np.ndarray) -> torch.Tensor:
    """Returns a tensor over the array's memory, which may be read-only: modules must not write into their inputs."""
    if array.dtype.name == "bfloat16":  # torch does not know the type from ml_dtypes
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Returns the tensor's values on the host, and waits for the device. On the CPU the memory is shared."""
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def _spend_the_warning() -> None:
    """Suppresses torch's warning, given once per process, that a read-only array is not copied. This is intended."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.from_numpy(np.frombuffer(b"\0\0\0\0", np.float32))


_spend_the_warning()
