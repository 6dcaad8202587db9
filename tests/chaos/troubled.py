"""A model that fails on request: a value selects how. It is copied beside the settings that name it."""

import os
import time
from typing import Any

import numpy as np

from models.base import OutOfDeviceMemory
from models.reference import NumpyModel
from models.spec import ModelSpec

RAISE, HANG, EXHAUST, DIE, LEAK = -1.0, -2.0, -3.0, -4.0, -5.0
LEAK_MB = 64
leaked: list[bytearray] = []


def troubled(spec: ModelSpec, batch_ms: float = 5.0) -> NumpyModel:
    """Returns a model that echoes its input after `batch_ms`."""

    def compute(x: np.ndarray) -> tuple[Any, ...]:
        time.sleep(batch_ms / 1e3)
        if np.any(x == RAISE):
            raise ValueError("told to fail")
        if np.any(x == HANG):
            time.sleep(3600)
        if np.any(x == EXHAUST):
            raise OutOfDeviceMemory("told to take too much")
        if np.any(x == DIE):
            os._exit(1)
        if np.any(x == LEAK):
            leaked.append(bytearray(os.urandom(4096) * (256 * LEAK_MB)))
        return (x,)

    return NumpyModel(spec, compute)
