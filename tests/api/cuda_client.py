"""A process that shares GPU memory, as a client would. CUDA can open such memory only in another process.

`python -m tests.api.cuda_client LIBRARY BYTES` prints the handle in base64, then executes the lines of its input:
`write OFFSET HEX`, and `read OFFSET BYTES`, which prints hex. At the end of the input it frees the memory.
"""

import base64
import ctypes
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import numpy as np

from serving.api.shared_memory.cuda_driver import HANDLE_BYTES, LIBRARY, CudaDriver, Shared

ROOT = Path(__file__).parents[2]


class SharedMemory:
    """GPU memory that another process owns until `close`. handle: as tritonclient's `get_raw_handle` returns it."""

    def __init__(self, byte_size: int, library: Path | str = LIBRARY) -> None:
        self.byte_size = byte_size
        command = [sys.executable, "-m", "tests.api.cuda_client", str(library), str(byte_size)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.handle = self._read_line().encode()

    def write(self, data: bytes, offset: int = 0) -> None:
        self._ask(f"write {offset} {data.hex()}")

    def read(self, offset: int, byte_size: int) -> bytes:
        return bytes.fromhex(self._ask(f"read {offset} {byte_size}"))

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._read_line()

    def _read_line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process that shares memory has ended"
        return line.strip()

    def __enter__(self) -> "SharedMemory":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.communicate()
        assert self._process.returncode == 0


class _Owner(CudaDriver):
    """The owner of the memory, in the other process."""

    def make(self, byte_size: int) -> Shared:
        address = ctypes.c_uint64()
        with self._on(0):
            self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(byte_size))
        return Shared(0, address.value, byte_size)

    def handle(self, memory: Shared) -> bytes:
        handle = ctypes.create_string_buffer(HANDLE_BYTES)
        with self._on(0):
            self._call("cuIpcGetMemHandle", handle, ctypes.c_uint64(memory.address))
        return handle.raw

    def free(self, memory: Shared) -> None:
        with self._on(0):
            self._call("cuMemFree_v2", ctypes.c_uint64(memory.address))


def main(library: str, byte_size: str) -> None:
    owner = _Owner(library)
    memory = owner.make(int(byte_size))
    print(base64.b64encode(owner.handle(memory)).decode(), flush=True)
    for line in sys.stdin:
        verb, offset, rest = line.split()
        if verb == "write":
            owner.write(memory, int(offset), np.frombuffer(bytes.fromhex(rest), np.uint8))
            print(flush=True)
        else:
            print(owner.read(memory, int(offset), int(rest)).tobytes().hex(), flush=True)
    owner.free(memory)


if __name__ == "__main__":
    main(*sys.argv[1:])
