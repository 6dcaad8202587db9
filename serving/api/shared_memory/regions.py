"""Shared memory regions that clients have registered: who knows them, and the tensors in them.

What is registered stands in a file, one for all processes of a server on one machine: the front writes it, replicas
look whether it has changed (one `stat`) when a request names a region, and open what they need on first use. What is
open stays so as long as a request holds on to it, whatever is unregistered meanwhile.
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
    """In Triton's words, which name the kind where that was asked for."""
    return UnknownRegion(f"Unable to find {kind}{' ' if kind else ''}shared memory region: '{name[:MAX_NAME]}'")


class Regions:
    """folder: of this server on this machine; it is made when the first region is registered. cuda: None where no
    GPU's memory can be shared."""

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

    # -- what clients ask for ---------------------------------------------------------------------------------

    def register(self, kind: Kind, name: str, facts: Mapping[str, Any]) -> None:
        """facts: `key`, `offset` and `byte_size`, or for a GPU's memory `raw_handle`, `device_id` and `byte_size`.
        Raises BadMessage."""
        region = region_of(kind, name, facts, uuid4().hex)
        # The front, which is asked, may have no GPU where a replica has one: a handle shows when it is used.
        if kind == "system":
            SystemMemory(region)
        with self._changing() as regions:
            if name in regions:
                raise BadMessage(f"shared memory region '{name}' already in manager")
            if len(regions) >= _MAX_REGIONS:
                raise BadMessage(f"{_MAX_REGIONS} regions are registered, the most there may be; unregister some")
            regions[name] = region

    def unregister(self, kind: Kind, name: str) -> None:
        """This region, or all of the kind for "". One that is not registered is no error. Requests that use it keep
        it."""
        with self._changing() as regions:
            for region in [region for region in regions.values() if region.kind == kind and name in ("", region.name)]:
                del regions[region.name]

    def status(self, kind: Kind, name: str) -> list[dict[str, Any]]:
        """This region, or all of the kind for "". Raises UnknownRegion."""
        self._look()
        found = [
            region.description() for region in self._known.values() if region.kind == kind and name in ("", region.name)
        ]
        if name and not found:
            raise unknown_region(name, kind)
        return found

    # -- tensors ----------------------------------------------------------------------------------------------

    def read(self, tensor: TensorLayout) -> Tensor:
        """An input that lies in a region: a view of the client's own memory where possible. Raises BadMessage."""
        assert tensor.span is not None
        memory = self.memory(tensor.span)
        memory.check(tensor.span, tensor.path)
        buffer, start = memory.view(tensor.span)
        array = read_tensor(buffer, start, tensor.span.byte_size, tensor.datatype, tensor.shape, tensor.path)
        # A model that works in place must not do so on the client's input.
        array.flags.writeable = False
        return array

    def memory(self, span: Span) -> Memory:
        """Of the region that the span names. Raises BadMessage."""
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
            self._opened = {name: memory for name, memory in self._opened.items() if memory.region.ticket in current}

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


class OutputTarget:
    """Where an output of one request is to be written; holds on to the memory until it is."""

    def __init__(self, output: OutputFormat, regions: Regions, index: int) -> None:
        """Raises BadMessage."""
        assert output.span is not None
        self._output = output
        self._span = output.span
        self._memory = regions.memory(output.span)
        self._memory.check(output.span, f"outputs[{index}]")

    def write(self, values: Mapping[str, Tensor]) -> None:
        """Raises BadTensor where it does not fit, BadOutput for what the model did not declare."""
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
