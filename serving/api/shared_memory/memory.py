"""The memory of one registered region as this process accesses it: mapped, or copied from and to a GPU."""

import base64
import mmap
import os
import re
import stat
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from serving.api.shared_memory.cuda_driver import HANDLE_BYTES, Bytes, CudaDriver, CudaError, Shared
from serving.protocol.errors import BadMessage, BadTensor
from serving.protocol.spans import Span

Kind = Literal["system", "cuda"]
MAX_NAME = 200
_HOME = Path("/dev/shm")  # where shm_open keeps its files
_KEY = re.compile(r"/?[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")
_RESERVED = ("triton_python_backend_shm_region_", "plasma")  # names that Triton and Ray use themselves


@dataclass(frozen=True, slots=True)
class Region:
    """A region that a client has registered.

    key: the name of system memory, or the base64 of a GPU memory's IPC handle.
    ticket: an id that distinguishes registrations of the same name.
    tenant: whose requests may name it; "" where callers need no credential.
    """

    name: str
    kind: Kind
    key: str
    byte_size: int
    offset: int = 0
    device_id: int = 0
    ticket: str = ""
    tenant: str = ""

    def description(self, name: str) -> dict[str, Any]:
        """Returns the region under this name, as the protocol's status operation answers it."""
        where = {"device_id": self.device_id} if self.kind == "cuda" else {"key": self.key, "offset": self.offset}
        return {"name": name, **where, "byte_size": self.byte_size}


def region_of(kind: Kind, name: str, facts: Mapping[str, Any], *, ticket: str, tenant: str) -> Region:
    """Returns the region that a client's request describes. Raises BadMessage if the description is invalid."""
    if not name or len(name) > MAX_NAME or "/" in name or name in (".", ".."):
        raise BadMessage(f"region name {name[:MAX_NAME]!r}: expected up to {MAX_NAME} characters without '/'")
    byte_size = facts.get("byte_size")
    if kind == "system":
        key, offset = facts.get("key"), facts.get("offset", 0)
        if type(key) is not str or type(offset) is not int or type(byte_size) is not int:
            raise BadMessage("a region needs a key (a text), an offset and a byte_size (numbers of bytes)")
        region = Region(name, kind, key, byte_size, offset=offset, ticket=ticket, tenant=tenant)
    else:
        device_id = facts.get("device_id")
        if type(device_id) is not int or type(byte_size) is not int or device_id < 0:
            raise BadMessage("a CUDA region needs a device_id and a byte_size (whole numbers)")
        handle = _handle_text(facts.get("raw_handle"))
        region = Region(name, kind, handle, byte_size, device_id=device_id, ticket=ticket, tenant=tenant)
    if region.offset < 0 or region.byte_size < 1:
        raise BadMessage("a region needs an offset of at least 0 and a byte_size of at least 1")
    return region


def _handle_text(given: object) -> str:
    text = given.get("b64") if isinstance(given, dict) else None
    try:
        handle = base64.b64decode(text if isinstance(text, str) else "", validate=True)
    except ValueError:
        handle = b""
    if len(handle) != HANDLE_BYTES:
        raise BadMessage(f"must be a CUDA IPC handle: {HANDLE_BYTES} bytes, in base64 as b64", path="raw_handle")
    return base64.b64encode(handle).decode()


class Memory(Protocol):
    """The memory of a region. `view` and `write` need a span that `check` has accepted."""

    @property
    def region(self) -> Region: ...

    def check(self, span: Span, path: str) -> None:
        """Raises BadTensor if the span is not within the region, BadMessage if the memory has become too small."""
        ...

    def view(self, span: Span) -> tuple[mmap.mmap | memoryview, int]:
        """Returns a buffer, and the position of the span's first byte in it. Raises BadMessage."""
        ...

    def write(self, span: Span, data: Bytes) -> None:
        """Writes the data at the beginning of the span. Raises BadMessage."""
        ...


class SystemMemory:
    """POSIX shared memory, mapped into this process."""

    def __init__(self, region: Region) -> None:
        """Maps the region. Raises BadMessage if there is no such memory, or if it is too small."""
        if not _KEY.fullmatch(region.key):
            raise BadMessage(
                f"shared memory key {region.key[:MAX_NAME]!r}: expected letters, digits, '.', '_' and '-', "
                "with at most one '/' in front"
            )
        key = region.key.lstrip("/")
        if key.startswith(_RESERVED):
            raise BadMessage(f"shared memory key {region.key!r} is reserved")
        self.region = region
        self._end = region.offset + region.byte_size
        try:
            descriptor = os.open(_HOME / key, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise BadMessage(f"Unable to open shared memory region: '{region.key}': {error.strerror}") from None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise BadMessage(f"'{region.key}' is no shared memory region")
            self._check_size(status.st_size)
            self._memory = mmap.mmap(descriptor, self._end)
        finally:
            os.close(descriptor)

    def check(self, span: Span, path: str) -> None:
        _check_within(self.region, span, path)
        # If the file has been truncated, reading beyond its end would kill this process (SIGBUS).
        self._check_size(self._memory.size())

    def view(self, span: Span) -> tuple[mmap.mmap, int]:
        return self._memory, self.region.offset + span.offset

    def write(self, span: Span, data: Bytes) -> None:
        np.ndarray(data.nbytes, np.uint8, self._memory, self.region.offset + span.offset)[:] = data

    def _check_size(self, file_bytes: int) -> None:
        if file_bytes < self._end:
            raise BadMessage(
                f"shared memory '{self.region.key}' has {file_bytes} bytes, but region '{self.region.name}' ends "
                f"at byte {self._end}"
            )


class CudaMemory:
    """Shared GPU memory. It is closed when this object is garbage collected."""

    def __init__(self, region: Region, driver: CudaDriver) -> None:
        """Opens the memory. Raises BadMessage if there is no such memory, or if it is too small."""
        self.region = region
        self._driver = driver
        try:
            self._shared = driver.open(base64.b64decode(region.key), region.device_id)
        except CudaError as error:
            raise self._failed("open", error) from None
        closing = weakref.finalize(self, _close, driver, self._shared)
        closing.atexit = False  # the driver closes the memory of a process that exits
        if self._shared.byte_size < region.byte_size:
            raise BadMessage(
                f"CUDA shared memory of region '{region.name}' has {self._shared.byte_size} bytes, not the "
                f"{region.byte_size} that were registered"
            )

    def check(self, span: Span, path: str) -> None:
        _check_within(self.region, span, path)

    def view(self, span: Span) -> tuple[memoryview, int]:
        try:
            return self._driver.read(self._shared, span.offset, span.byte_size).data, 0
        except CudaError as error:
            raise self._failed("read", error) from None

    def write(self, span: Span, data: Bytes) -> None:
        try:
            self._driver.write(self._shared, span.offset, data)
        except CudaError as error:
            raise self._failed("write", error) from None

    def _failed(self, verb: str, error: CudaError) -> BadMessage:
        """Returns the driver's error as an error for the client.

        The callers raise it, not a context manager: since Python 3.12, a context manager that replaces an error leaves
        a reference cycle, which would keep the memory open until the next garbage collection.
        """
        return BadMessage(f"Unable to {verb} CUDA shared memory region '{self.region.name}': {error}")


def _close(driver: CudaDriver, shared: Shared) -> None:
    with suppress(CudaError):  # after a sticky CUDA error closing fails, but then the process is replaced anyway
        driver.close(shared)


def _check_within(region: Region, span: Span, path: str) -> None:
    if span.offset + span.byte_size > region.byte_size:
        raise BadTensor(
            f"{span.byte_size} bytes at offset {span.offset} are beyond the end of shared memory region "
            f"'{region.name}', which has {region.byte_size} bytes",
            path=path,
        )
