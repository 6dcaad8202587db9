"""The shared memory regions that clients have registered, and the tensors in them.

All processes of a server on one machine share a file with the registered regions. The front writes it. When a request
names a region, a replica checks whether the file has changed (one `stat`), and opens the region on first use. Memory
stays open while a request uses it, even if the region is unregistered meanwhile.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from serving.api.shared_memory.cuda_driver import CudaDriver
from serving.api.shared_memory.memory import MAX_NAME, CudaMemory, Kind, Memory, Region, SystemMemory, region_of
from serving.protocol.errors import BadMessage, BadOutput, BadTensor, UnknownRegion
from serving.protocol.layout import TensorLayout
from serving.protocol.messages import Tensor
from serving.protocol.reply import OutputFormat, fitting
from serving.protocol.spans import Span
from serving.protocol.tensors import read_tensor, write_tensor

_MAX_REGIONS = 1024
NO_DRIVER = "CUDA shared memory needs NVIDIA's driver, and this machine has none"


def unknown_region(name: str, kind: str = "") -> UnknownRegion:
    """Returns the error with Triton's text, which names the kind only for a request for that kind."""
    return UnknownRegion(f"Unable to find {kind}{' ' if kind else ''}shared memory region: '{name[:MAX_NAME]}'")


class Regions:
    """The regions of a server on one machine.

    folder: holds the file of regions; it is created when the first region is registered.
    cuda: None if GPU memory cannot be shared.
    """

    def __init__(self, folder: Path, cuda: CudaDriver | None = None) -> None:
        self._cuda = cuda
        self._folder = folder
        self._file = folder / "regions.json"
        self._version: tuple[int, int] | None = None
        self._known: dict[str, Region] = {}
        self._opened: dict[str, Memory] = {}

    @property
    def has_cuda(self) -> bool:
        return self._cuda is not None

    # -- operations of clients --------------------------------------------------------------------------------

    def register(self, kind: Kind, name: str, facts: Mapping[str, Any]) -> None:
        """Registers a region. Raises BadMessage.

        facts: `key`, `offset` and `byte_size`; for a GPU's memory `raw_handle`, `device_id` and `byte_size`.
        """
        region = region_of(kind, name, facts, uuid4().hex)
        # The front, which runs this, may have no GPU even if a replica has one. A GPU's handle is checked on first use.
        if kind == "system":
            SystemMemory(region)
        with self._changing() as regions:
            if name in regions:
                raise BadMessage(f"shared memory region '{name}' already in manager")
            if len(regions) >= _MAX_REGIONS:
                raise BadMessage(f"{_MAX_REGIONS} regions are registered, which is the limit; unregister some")
            regions[name] = region

    def unregister(self, kind: Kind, name: str) -> None:
        """Unregisters this region, or all of the kind if the name is empty. An unknown region is no error.

        Requests that already use the region keep it open."""
        with self._changing() as regions:
            for region in [region for region in regions.values() if region.kind == kind and name in ("", region.name)]:
                del regions[region.name]

    def status(self, kind: Kind, name: str) -> list[dict[str, Any]]:
        """Returns the status of this region, or of all of the kind if the name is empty. Raises UnknownRegion."""
        self._look()
        found = [
            region.description() for region in self._known.values() if region.kind == kind and name in ("", region.name)
        ]
        if name and not found:
            raise unknown_region(name, kind)
        return found

    # -- tensors ----------------------------------------------------------------------------------------------

    def read(self, tensor: TensorLayout) -> Tensor:
        """Returns an input that lies in a region, as a view of the client's memory if possible. Raises BadMessage."""
        assert tensor.span is not None
        memory = self.memory(tensor.span)
        memory.check(tensor.span, tensor.path)
        buffer, start = memory.view(tensor.span)
        array = read_tensor(buffer, start, tensor.span.byte_size, tensor.datatype, tensor.shape, tensor.path)
        # A model that works in place must not change the client's input.
        array.flags.writeable = False
        return array

    def memory(self, span: Span) -> Memory:
        """Returns the memory of the region that the span names, opened on first use. Raises BadMessage."""
        self._look()
        memory = self._opened.get(span.region)
        if memory is None:
            region = self._known.get(span.region)
            if region is None:
                raise unknown_region(span.region)
            memory = self._opened[span.region] = self._open(region)
        return memory

    def _open(self, region: Region) -> Memory:
        if region.kind == "system":
            return SystemMemory(region)
        if self._cuda is None:
            raise BadMessage(NO_DRIVER)
        return CudaMemory(region, self._cuda)

    # -- the file ---------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Reads the file of regions again if it has been replaced, and drops memory of unregistered regions."""
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
            self._opened = {name: memory for name, memory in self._opened.items() if memory.region.ticket in current}

    def _read(self) -> dict[str, Region]:
        try:
            entries = json.loads(self._file.read_bytes())
        except FileNotFoundError:
            return {}
        return {entry["name"]: Region(**entry) for entry in entries}

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Region]]:
        """Yields the regions for changes and writes them afterwards.

        Only one process at a time can change them. Readers see either the old file or the new one."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            regions = self._read()
            yield regions
            new = self._file.with_suffix(".new")
            new.write_text(json.dumps([asdict(region) for region in regions.values()]))
            new.replace(self._file)


class OutputTarget:
    """The place in shared memory to which an output of one request is written. It keeps the memory open."""

    def __init__(self, output: OutputFormat, regions: Regions, index: int) -> None:
        """Opens the place. index: of the output in the request, for messages. Raises BadMessage."""
        assert output.span is not None
        self._output = output
        self._span = output.span
        self._memory = regions.memory(output.span)
        self._memory.check(output.span, f"outputs[{index}]")

    def write(self, values: Mapping[str, Tensor]) -> None:
        """Writes the output. Raises BadTensor if it does not fit there, BadOutput if the model did not return it."""
        name = self._output.name
        if name not in values:
            raise BadOutput(f"the model returned no output {name!r}")
        raw = write_tensor(fitting(values[name], self._output))
        data = np.frombuffer(raw, np.uint8) if isinstance(raw, bytes) else raw.reshape(-1).view(np.uint8)
        if data.nbytes > self._span.byte_size:
            raise BadTensor(
                f"shared memory size specified with the request for output '{name}' ({self._span.byte_size} bytes) "
                f"should be at least {data.nbytes} bytes to hold the results"
            )
        self._memory.write(self._span, data)
