"""Reads and writes GPU memory that another process shares, through NVIDIA's driver (CUDA's driver API, IPC).

The driver is called with ctypes: torch can only open memory that torch has shared, and NVIDIA's bindings are a package
of 30 MB, of which a dozen functions would be used.
"""

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

import numpy as np

Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]
LIBRARY = "libcuda.so.1"
HANDLE_BYTES = 64  # of a CUipcMemHandle, and of the identical cudaIpcMemHandle_t of the CUDA runtime
_OWN_STREAM = 1  # CU_STREAM_NON_BLOCKING: no implicit synchronization with the default stream
_LAZY_PEER_ACCESS = 1


class CudaError(Exception):
    """A failed call of the driver. The text has the function's name, and the name and number of the error."""


class _IpcHandle(ctypes.Structure):
    _fields_ = [("reserved", ctypes.c_char * HANDLE_BYTES)]


@dataclass(frozen=True, slots=True)
class Shared:
    """Memory of another process, opened in this one."""

    device: int
    address: int
    byte_size: int


_Handle = ctypes.c_void_p
_Address = ctypes.c_uint64
_SIGNATURES: Mapping[str, tuple[type, ...]] = {
    "cuInit": (ctypes.c_uint,),
    "cuGetErrorName": (ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)),
    "cuDeviceGet": (ctypes.POINTER(ctypes.c_int), ctypes.c_int),
    "cuDevicePrimaryCtxRetain": (ctypes.POINTER(_Handle), ctypes.c_int),
    "cuCtxPushCurrent_v2": (_Handle,),
    "cuCtxPopCurrent_v2": (ctypes.POINTER(_Handle),),
    "cuStreamCreate": (ctypes.POINTER(_Handle), ctypes.c_uint),
    "cuStreamSynchronize": (_Handle,),
    "cuIpcOpenMemHandle_v2": (ctypes.POINTER(_Address), _IpcHandle, ctypes.c_uint),
    "cuIpcCloseMemHandle": (_Address,),
    "cuMemGetAddressRange_v2": (ctypes.POINTER(_Address), ctypes.POINTER(ctypes.c_size_t), _Address),
    "cuMemcpyDtoHAsync_v2": (_Handle, _Address, ctypes.c_size_t, _Handle),
    "cuMemcpyHtoDAsync_v2": (_Address, _Handle, ctypes.c_size_t, _Handle),
}  # fmt: skip


def cuda_driver(visible: Sequence[str] | None) -> "CudaDriver | None":
    """Returns NVIDIA's driver, None if it is not installed. visible: see `CudaDriver`."""
    try:
        return CudaDriver(LIBRARY, visible=visible)
    except OSError:
        return None


class CudaDriver:
    """NVIDIA's driver. May be called from any thread; each call restores the thread's current CUDA context."""

    def __init__(self, library: str, *, visible: Sequence[str] | None = None) -> None:
        """Loads the library; the GPU is not used before the first `open`. Raises OSError if there is no such library.

        visible: the GPUs that this process may use, by index or UUID; None for all of the machine.
        """
        self._library = ctypes.CDLL(library)
        for name, arguments in _SIGNATURES.items():
            getattr(self._library, name).argtypes = arguments
        self._visible = visible
        self._lock = Lock()
        self._opened: dict[int, tuple[_Handle, _Handle]] = {}

    def open(self, handle: bytes, device: int) -> Shared:
        """Opens the memory of another process. Raises CudaError.

        handle: the CUDA IPC handle made by the client, 64 bytes. device: the number of the GPU as the client counts.
        """
        own = own_number(device, self._visible)
        address, start, size = _Address(), _Address(), ctypes.c_size_t()
        with self._on(own):
            shared = _IpcHandle.from_buffer_copy(handle)
            self._call("cuIpcOpenMemHandle_v2", ctypes.byref(address), shared, _LAZY_PEER_ACCESS)
            try:
                self._call("cuMemGetAddressRange_v2", ctypes.byref(start), ctypes.byref(size), address)
            except CudaError:
                self._call("cuIpcCloseMemHandle", address)
                raise
        return Shared(own, address.value, start.value + size.value - address.value)

    def read(self, shared: Shared, offset: int, byte_size: int) -> Bytes:
        """Returns a copy of `byte_size` bytes, counted from `offset`. Raises CudaError."""
        copy = np.empty(byte_size, np.uint8)
        with self._on(shared.device) as stream:
            self._call("cuMemcpyDtoHAsync_v2", copy.ctypes.data, shared.address + offset, byte_size, stream)
            self._call("cuStreamSynchronize", stream)
        return copy

    def write(self, shared: Shared, offset: int, data: Bytes) -> None:
        """Copies contiguous data to the memory at `offset`; returns when the copy is complete. Raises CudaError."""
        with self._on(shared.device) as stream:
            self._call("cuMemcpyHtoDAsync_v2", shared.address + offset, data.ctypes.data, data.nbytes, stream)
            self._call("cuStreamSynchronize", stream)

    def close(self, shared: Shared) -> None:
        """Closes opened memory. Raises CudaError."""
        with self._on(shared.device):
            self._call("cuIpcCloseMemHandle", shared.address)

    @contextmanager
    def _on(self, device: int) -> Iterator[_Handle]:
        """Makes the device's primary context, which torch uses too, current in this thread; yields our own stream."""
        context, stream = self._of_device(device)
        with self._current(context):
            yield stream

    @contextmanager
    def _current(self, context: _Handle) -> Iterator[None]:
        self._call("cuCtxPushCurrent_v2", context)
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent_v2", ctypes.byref(_Handle()))

    def _of_device(self, device: int) -> tuple[_Handle, _Handle]:
        with self._lock:
            if device not in self._opened:
                found, context, stream = ctypes.c_int(), _Handle(), _Handle()
                self._call("cuInit", 0)
                self._call("cuDeviceGet", ctypes.byref(found), device)
                self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), found)
                with self._current(context):
                    self._call("cuStreamCreate", ctypes.byref(stream), _OWN_STREAM)
                self._opened[device] = context, stream
            return self._opened[device]

    def _call(self, name: str, *arguments: object) -> None:
        if status := getattr(self._library, name)(*arguments):
            word = ctypes.c_char_p()
            self._library.cuGetErrorName(status, ctypes.byref(word))
            raise CudaError(f"{name}: {(word.value or b'unknown error').decode()} ({status})")


def own_number(device: int, visible: Sequence[str] | None) -> int:
    """Returns the number that a GPU has in this process.

    A client counts all GPUs of the machine; a replica sees only its own, numbered from 0. The memory of a GPU that the
    replica does not see is accessed through the replica's first GPU."""
    if visible is None:
        return device
    return visible.index(str(device)) if str(device) in visible else 0
