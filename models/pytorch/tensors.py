"""numpy arrays to torch tensors and back, without a copy on the CPU."""

import warnings

import numpy as np
import torch


def from_numpy(array: np.ndarray) -> torch.Tensor:
    """A tensor over the array's memory. The array may be read-only: modules must not write into their inputs."""
    if array.dtype.name == "bfloat16":  # a type torch has and numpy borrows
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The tensor on the host; waits for the device. On the CPU the memory is shared."""
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def _spend_the_warning() -> None:
    """torch warns, once per process, that a read-only array is not copied. That is what we want; hear it here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.from_numpy(np.frombuffer(b"\0\0\0\0", np.float32))


_spend_the_warning()
