"""Tests of sharing GPU memory between processes, for any driver.

pytest runs them with the driver in `serving.testing`, and with NVIDIA's if there is one. `python -m
tests.api.cuda_stories [LIBRARY]` runs them without pytest, by default with NVIDIA's driver.
"""

import base64
import ctypes
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Thread

import numpy as np

from serving.api.shared_memory.cuda_driver import LIBRARY, CudaDriver, CudaError
from tests.api.cuda_client import SharedMemory
from tests.telling import tell

Library = Path | str


def current_context(library: Library) -> int:
    """Returns the current CUDA context of this thread; 0 without one."""
    context = ctypes.c_void_p()
    ctypes.CDLL(str(library)).cuCtxGetCurrent(ctypes.byref(context))
    return context.value or 0


def refusal(driver: CudaDriver, device: int) -> str:
    """Returns the driver's error for a handle that no process has exported."""
    try:
        driver.open(b"\1" * 64, device)
    except CudaError as error:
        return str(error)
    return ""


def what_one_process_writes_the_other_reads(library: Library) -> None:
    driver = CudaDriver(str(library))
    with SharedMemory(3 << 20, library) as client:
        client.write(b"here it is", offset=1000)
        shared = driver.open(base64.b64decode(client.handle), 0)
        assert driver.read(shared, 1000, 10).tobytes() == b"here it is"
        driver.write(shared, (3 << 20) - 5, np.frombuffer(b"there", np.uint8))
        assert client.read((3 << 20) - 5, 5) == b"there"
        assert shared.byte_size >= 3 << 20
        driver.close(shared)


def closed_memory_can_be_opened_again(library: Library) -> None:
    driver = CudaDriver(str(library))
    with SharedMemory(256, library) as client:
        handle = base64.b64decode(client.handle)
        for round in range(3):
            shared = driver.open(handle, 0)
            driver.write(shared, 0, np.full(1, round, np.uint8))
            driver.close(shared)
            assert client.read(0, 1) == bytes([round])


def a_handle_of_nothing_is_refused_in_the_drivers_words(library: Library) -> None:
    driver = CudaDriver(str(library))
    assert "cuIpcOpenMemHandle_v2: CUDA_ERROR_" in refusal(driver, 0)


def a_gpu_that_is_not_there_is_refused_in_the_drivers_words(library: Library) -> None:
    assert "cuDeviceGet: CUDA_ERROR_INVALID_DEVICE" in refusal(CudaDriver(str(library)), 99)


def any_thread_may_use_it_and_keeps_the_context_it_had(library: Library) -> None:
    driver = CudaDriver(str(library))
    with SharedMemory(64, library) as client:
        client.write(bytes(range(64)))
        shared = driver.open(base64.b64decode(client.handle), 0)
        read: list[bytes] = []

        def use() -> None:
            before = current_context(library)
            read.append(driver.read(shared, 8, 8).tobytes())
            assert current_context(library) == before
            read.append(b"as before")

        for thread in [Thread(target=use) for _ in range(4)]:
            thread.start()
            thread.join()
        assert read == [bytes(range(8, 16)), b"as before"] * 4
        driver.close(shared)


STORIES: tuple[Callable[[Library], None], ...] = (
    what_one_process_writes_the_other_reads,
    closed_memory_can_be_opened_again,
    a_handle_of_nothing_is_refused_in_the_drivers_words,
    a_gpu_that_is_not_there_is_refused_in_the_drivers_words,
    any_thread_may_use_it_and_keeps_the_context_it_had,
)


def main(library: str = LIBRARY) -> int:
    return tell((story.__name__, partial(story, library)) for story in STORIES)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
