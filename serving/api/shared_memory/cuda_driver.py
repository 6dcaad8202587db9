"""Reads and writes GPU memory that another process shares, with the IPC functions of CUDA's driver API.

The driver is called with ctypes: torch can open only memory of tensors that torch itself has shared, and NVIDIA's
Python bindings are a package of 30 MB, of which a dozen functions would be used.
"""

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

import numpy as np

Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]
LIBRARY = "libcuda.so.1"
HANDLE_BYTES = 64  # of a CUipcMemHandle; equal to the runtime's cudaIpcMemHandle_t
_OWN_STREAM = 1  # CU_STREAM_NON_BLOCKING: does not synchronize with the default stream
_LAZY_PEER_ACCESS = 1


class CudaError(Exception):
    """A call of the driver that failed, with the name of the driver's error."""


class _IpcHandle(ctypes.Structure):
    _fields_ = [("reserved", ctypes.c_char * HANDLE_BYTES)]


@dataclass(frozen=True, slots=True)
class Shared:
    """GPU memory of another process, opened in this one. device: as this process numbers its GPUs."""

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
    """Returns NVIDIA's driver, None if it is not installed. visible: as for `CudaDriver`."""
    try:
        return CudaDriver(LIBRARY, visible=visible)
    except OSError:
        return None


class CudaDriver:
    """The CUDA driver. May be called from any thread; each call leaves the thread's current CUDA context as it was."""

    def __init__(self, library: str, *, visible: Sequence[str] | None = None) -> None:
        """Loads the library; the GPU is not used before the first `open`. Raises OSError if there is no such library.

        visible: the GPUs that this process may use, by index or UUID; None for all.
        """
        self._library = ctypes.CDLL(library)
        for name, arguments in _SIGNATURES.items():
            getattr(self._library, name).argtypes = arguments
        self._visible = visible
        self._lock = Lock()
        self._opened: dict[int, tuple[_Handle, _Handle]] = {}

    def open(self, handle: bytes, device: int) -> Shared:
        """Opens memory of another process. Raises CudaError.

        handle: the CUDA IPC handle of the memory, from the client. device: the number of its GPU on the machine.
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
        """Returns a copy of `byte_size` bytes from `offset` on. Raises CudaError."""
        copy = np.empty(byte_size, np.uint8)
        with self._on(shared.device) as stream:
            self._call("cuMemcpyDtoHAsync_v2", copy.ctypes.data, shared.address + offset, byte_size, stream)
            self._call("cuStreamSynchronize", stream)
        return copy

    def write(self, shared: Shared, offset: int, data: Bytes) -> None:
        """Writes contiguous data at `offset`. Returns when the copy is complete. Raises CudaError."""
        with self._on(shared.device) as stream:
            self._call("cuMemcpyHtoDAsync_v2", shared.address + offset, data.ctypes.data, data.nbytes, stream)
            self._call("cuStreamSynchronize", stream)

    def close(self, shared: Shared) -> None:
        """Closes the memory. Raises CudaError."""
        with self._on(shared.device):
            self._call("cuIpcCloseMemHandle", shared.address)

    @contextmanager
    def _on(self, device: int) -> Iterator[_Handle]:
        """Makes the device's primary context, which torch uses too, current in this thread. Yields a stream."""
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
                handle, context, stream = ctypes.c_int(), _Handle(), _Handle()
                self._call("cuInit", 0)
                self._call("cuDeviceGet", ctypes.byref(handle), device)
                self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), handle)
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
    """Returns the number in this process of the machine's GPU number `device`.

    A process numbers the GPUs that it sees from 0. The memory of a GPU that it does not see is accessed through its
    first GPU.
    """
    if visible is None:
        return device
    return visible.index(str(device)) if str(device) in visible else 0
