"""System shared memory regions that clients have registered: who knows them, and the tensors in them.

What is registered stands in a file, one for all processes of a server on one machine: the front writes it, replicas
look whether it has changed (one `stat`) when a request names a region, and map what they need on first use. A mapping
lives as long as a request holds on to it, whatever is unregistered meanwhile.
"""

import fcntl
import json
import mmap
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from serving.protocol.errors import BadMessage, BadOutput, BadTensor, UnknownRegion
from serving.protocol.layout import TensorLayout
from serving.protocol.messages import Tensor
from serving.protocol.reply import OutputFormat, fitting
from serving.protocol.spans import Span
from serving.protocol.tensors import read_tensor, write_tensor

_HOME = Path("/dev/shm")  # where shm_open keeps its files
_KEY = re.compile(r"/?[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")
_RESERVED = ("triton_python_backend_shm_region_", "plasma")  # of Triton's, and of Ray's own processes
_MAX_REGIONS = 1024
_MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class Region:
    """What a client registered. `ticket` tells one registration from the next of the same name."""

    name: str
    key: str
    offset: int
    byte_size: int
    ticket: str = ""


class Mapped:
    """A region in this process's memory."""

    def __init__(self, region: Region) -> None:
        """Raises BadMessage where there is no such memory, or not enough of it."""
        if not _KEY.fullmatch(region.key):
            raise BadMessage(
                f"shared memory key {region.key[:_MAX_NAME]!r}: expected letters, digits, '.', '_' and '-', "
                "with at most one '/' in front"
            )
        key = region.key.lstrip("/")
        if key.startswith(_RESERVED):
            raise BadMessage(f"shared memory key {region.key!r} is reserved")
        if region.offset < 0 or region.byte_size < 1:
            raise BadMessage("a region needs an offset of at least 0 and a byte_size of at least 1")
        self.region = region
        self._end = region.offset + region.byte_size
        try:
            descriptor = os.open(_HOME / key, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise BadMessage(f"Unable to open shared memory region: '{region.key}': {error.strerror}") from None
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise BadMessage(f"'{region.key}' is no shared memory region")
            self._check_size(found.st_size)
            self._memory = mmap.mmap(descriptor, self._end)
        finally:
            os.close(descriptor)

    def place(self, span: Span, path: str) -> tuple[mmap.mmap, int]:
        """The memory, and where in it the span begins. Raises BadTensor for one that is not within the region."""
        region = self.region
        if span.offset + span.byte_size > region.byte_size:
            raise BadTensor(
                f"{span.byte_size} bytes at offset {span.offset} are more than shared memory region '{region.name}' "
                f"has, {region.byte_size} bytes",
                path=path,
            )
        # Reading behind the end of a file that was cut short meanwhile would end this process.
        self._check_size(self._memory.size())
        return self._memory, region.offset + span.offset

    def _check_size(self, file_bytes: int) -> None:
        if file_bytes < self._end:
            raise BadMessage(
                f"shared memory '{self.region.key}' has {file_bytes} bytes, but region '{self.region.name}' is to end "
                f"at {self._end}"
            )


def _unknown(name: str) -> UnknownRegion:
    return UnknownRegion(f"Unable to find system shared memory region: '{name[:_MAX_NAME]}'")


class Regions:
    """folder: of this server on this machine; it is made when the first region is registered."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "regions.json"
        self._version: tuple[int, int] | None = None
        self._known: dict[str, Region] = {}
        self._mapped: dict[str, Mapped] = {}

    # -- what clients ask for ---------------------------------------------------------------------------------

    def register(self, name: str, key: object, offset: object, byte_size: object) -> None:
        """Raises BadMessage."""
        if not name or len(name) > _MAX_NAME or "/" in name or name in (".", ".."):
            raise BadMessage(f"region name {name[:_MAX_NAME]!r}: expected up to {_MAX_NAME} characters without '/'")
        if type(key) is not str or type(offset) is not int or type(byte_size) is not int:
            raise BadMessage("a region needs a key (a text), an offset and a byte_size (numbers of bytes)")
        region = Region(name, key, offset, byte_size, uuid4().hex)
        Mapped(region)  # says what is wrong with it
        with self._changing() as regions:
            if name in regions:
                raise BadMessage(f"shared memory region '{name}' already in manager")
            if len(regions) >= _MAX_REGIONS:
                raise BadMessage(f"{_MAX_REGIONS} regions are registered, the most there may be; unregister some")
            regions[name] = region

    def unregister(self, name: str) -> None:
        """This region, or all for "". One that is not registered is no error. Requests that use it keep it."""
        with self._changing() as regions:
            if name:
                regions.pop(name, None)
            else:
                regions.clear()

    def status(self, name: str) -> list[dict[str, Any]]:
        """This region, or all for "". Raises UnknownRegion."""
        self._look()
        if name and name not in self._known:
            raise _unknown(name)
        chosen = [self._known[name]] if name else self._known.values()
        return [{"name": r.name, "key": r.key, "offset": r.offset, "byte_size": r.byte_size} for r in chosen]

    # -- tensors ----------------------------------------------------------------------------------------------

    def read(self, tensor: TensorLayout) -> Tensor:
        """An input that lies in a region: a view of the client's own memory where possible. Raises BadMessage."""
        assert tensor.span is not None
        memory, start = self.mapping(tensor.span).place(tensor.span, tensor.path)
        size = tensor.span.byte_size
        array = read_tensor(memory, start, size, tensor.datatype, tensor.shape, tensor.path)
        # A model that works in place must not do so on the client's input.
        array.flags.writeable = False
        return array

    def mapping(self, span: Span) -> Mapped:
        """Of the region that the span names. Raises BadMessage."""
        self._look()
        mapping = self._mapped.get(span.region)
        if mapping is None:
            if span.region not in self._known:
                raise _unknown(span.region)
            mapping = self._mapped[span.region] = Mapped(self._known[span.region])
        return mapping

    # -- the file ---------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Reads the file again if it is another one than before."""
        try:
            found = os.stat(self._file)
        except FileNotFoundError:
            version = None
        else:
            version = (found.st_ino, found.st_mtime_ns)
        if version != self._version:
            self._known = self._read()
            self._version = version
            current = {region.ticket for region in self._known.values()}
            self._mapped = {name: m for name, m in self._mapped.items() if m.region.ticket in current}

    def _read(self) -> dict[str, Region]:
        try:
            entries = json.loads(self._file.read_bytes())
        except FileNotFoundError:
            return {}
        return {entry["name"]: Region(**entry) for entry in entries}

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Region]]:
        """The regions, to be changed; one process at a time, and readers see the old file or the new one."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            regions = self._read()
            yield regions
            new = self._file.with_suffix(".new")
            new.write_text(json.dumps([asdict(region) for region in regions.values()]))
            new.replace(self._file)


class Target:
    """Where an output of one request is to be written; holds on to the memory until it is."""

    def __init__(self, output: OutputFormat, regions: Regions, index: int) -> None:
        """Raises BadMessage."""
        assert output.span is not None
        self._output = output
        self._span = output.span
        mapping = regions.mapping(output.span)
        self._memory, self._start = mapping.place(output.span, f"outputs[{index}]")

    def write(self, values: Mapping[str, Tensor]) -> None:
        """Raises BadTensor where it does not fit, BadOutput for what the model did not declare."""
        name = self._output.name
        if name not in values:
            raise BadOutput(f"the model returned no output {name!r}")
        raw = write_tensor(fitting(values[name], self._output))
        size = len(raw) if isinstance(raw, bytes) else raw.nbytes
        if size > self._span.byte_size:
            raise BadTensor(
                f"shared memory size specified with the request for output '{name}' ({self._span.byte_size} bytes) "
                f"should be at least {size} bytes to hold the results"
            )
        data = np.frombuffer(raw, np.uint8) if isinstance(raw, bytes) else raw.reshape(-1).view(np.uint8)
        np.ndarray(size, np.uint8, self._memory, self._start)[:] = data
