"""The shared memory regions that clients have registered, and the tensors in them.

All processes of a server on one machine share one file, which lists the registered regions. The front writes it. When a
request names a region, its replica checks with one `stat` whether the file has changed, and opens the region on its
first use. A region stays open as long as a request uses it, even if it is unregistered meanwhile.

Where callers need credentials, every region belongs to a tenant. Each tenant has names of its own, and a region of
another is answered as one that is not registered.
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
_MAX_OF_TENANT = _MAX_REGIONS // 2  # so that one tenant does not keep the others out
_Owned = tuple[str, str]  # the tenant of a region, and its name
NO_DRIVER = "CUDA shared memory needs NVIDIA's driver, and this machine has none"


def unknown_region(name: str, kind: str = "") -> UnknownRegion:
    """Returns the error with Triton's text, which names the kind only if the client's request does."""
    return UnknownRegion(f"Unable to find {kind}{' ' if kind else ''}shared memory region: '{name[:MAX_NAME]}'")


class Regions:
    """The registered regions as one process sees them.

    folder: shared by this server's processes on this machine; created when the first region is registered.
    cuda: None if GPU memory cannot be shared.
    by_tenant: whether regions belong to tenants. If not, tenants are ignored: any request may name any region.
    """

    def __init__(self, folder: Path, cuda: CudaDriver | None = None, *, by_tenant: bool = False) -> None:
        self._cuda = cuda
        self._by_tenant = by_tenant
        self._folder = folder
        self._file = folder / "regions.json"
        self._version: tuple[int, int] | None = None
        self._known: dict[_Owned, Region] = {}
        self._opened: dict[_Owned, Memory] = {}

    @property
    def has_cuda(self) -> bool:
        return self._cuda is not None

    # -- operations of clients ------------------------------------------------------------------------------------

    def register(self, kind: Kind, name: str, facts: Mapping[str, Any], tenant: str = "") -> None:
        """Registers a region of this tenant. Raises BadMessage.

        facts: `key`, `offset` and `byte_size`; for GPU memory `raw_handle`, `device_id` and `byte_size`.
        """
        owner = self._owner(tenant)
        region = region_of(kind, name, facts, ticket=uuid4().hex, tenant=owner)
        # This runs in the front, which may have no GPU, so a CUDA handle is checked when a replica first uses it.
        if kind == "system":
            SystemMemory(region)
        with self._changing() as regions:
            if (owner, name) in regions:
                raise BadMessage(f"shared memory region '{name}' already in manager")
            if len(regions) >= _MAX_REGIONS:
                raise BadMessage(f"{_MAX_REGIONS} regions are registered, which is the limit; unregister some")
            if owner and sum(region.tenant == owner for region in regions.values()) >= _MAX_OF_TENANT:
                raise BadMessage(f"this tenant has {_MAX_OF_TENANT} regions, which is the limit; unregister some")
            regions[owner, name] = region

    def unregister(self, kind: Kind, name: str, tenant: str = "") -> None:
        """Unregisters this region of a tenant; all its regions of the kind for "".

        It is no error if the region is not registered. Requests that use it already can still access it."""
        owner = self._owner(tenant)
        with self._changing() as regions:
            for owned, region in list(regions.items()):
                if region.kind == kind and region.tenant == owner and name in ("", region.name):
                    del regions[owned]

    def status(self, kind: Kind, name: str, tenant: str = "", *, of_all: bool = False) -> list[dict[str, Any]]:
        """Returns the description of this region of a tenant; of all its regions of the kind for "".

        of_all: shows the regions of other tenants too, under `<tenant>/<name>`. Raises UnknownRegion.
        """
        self._look()
        owner = self._owner(tenant)
        shown = {
            region.name if region.tenant == owner else f"{region.tenant}/{region.name}": region
            for region in self._known.values()
            if region.kind == kind and (of_all or region.tenant == owner)
        }
        descriptions = [region.description(each) for each, region in shown.items() if name in ("", each)]
        if name and not descriptions:
            raise unknown_region(name, kind)
        return descriptions

    # -- tensors --------------------------------------------------------------------------------------------------

    def read(self, tensor: TensorLayout, tenant: str) -> Tensor:
        """Returns an input that lies in a region of this tenant: if possible a view of the client's memory.

        Raises BadMessage."""
        assert tensor.span is not None
        memory = self.memory(tensor.span, tenant)
        memory.check(tensor.span, tensor.path)
        buffer, start = memory.view(tensor.span)
        array = read_tensor(buffer, start, tensor.span.byte_size, tensor.datatype, tensor.shape, tensor.path)
        # A model that works in place must not change the client's memory.
        array.flags.writeable = False
        return array

    def memory(self, span: Span, tenant: str) -> Memory:
        """Returns the memory of the region that a request of this tenant names, opening it if necessary.

        Raises BadMessage."""
        self._look()
        owned = self._owner(tenant), span.region
        memory = self._opened.get(owned)
        if memory is None:
            region = self._known.get(owned)
            if region is None:
                raise unknown_region(span.region)
            memory = self._opened[owned] = self._open(region)
        return memory

    def _owner(self, tenant: str) -> str:
        return tenant if self._by_tenant else ""

    def _open(self, region: Region) -> Memory:
        if region.kind == "system":
            return SystemMemory(region)
        if self._cuda is None:
            raise BadMessage(NO_DRIVER)
        return CudaMemory(region, self._cuda)

    # -- the file -------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Reads the file again if it has been replaced since the last time."""
        try:
            status = os.stat(self._file)
        except FileNotFoundError:
            version = None
        else:
            version = (status.st_ino, status.st_mtime_ns)
        if version != self._version:
            self._known = self._read()
            self._version = version
            current = {region.ticket for region in self._known.values()}
            self._opened = {owned: memory for owned, memory in self._opened.items() if memory.region.ticket in current}

    def _read(self) -> dict[_Owned, Region]:
        try:
            entries = json.loads(self._file.read_bytes())
        except FileNotFoundError:
            return {}
        return {(region.tenant, region.name): region for region in (Region(**entry) for entry in entries)}

    @contextmanager
    def _changing(self) -> Iterator[dict[_Owned, Region]]:
        """Yields the regions by tenant and name, and writes back the changed ones.

        A lock admits one process at a time. The file is replaced as a whole, so readers never see a partial one."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            regions = self._read()
            yield regions
            new = self._file.with_suffix(".new")
            new.write_text(json.dumps([asdict(region) for region in regions.values()]))
            new.replace(self._file)


class OutputTarget:
    """The place in shared memory for an output of one request. Keeps the memory open until the output is written."""

    def __init__(self, output: OutputFormat, regions: Regions, index: int, tenant: str) -> None:
        """Opens the memory, which belongs to the request's tenant. Raises BadMessage if there is no such region,
        BadTensor if the place is not within it."""
        assert output.span is not None
        self._output = output
        self._span = output.span
        self._memory = regions.memory(output.span, tenant)
        self._memory.check(output.span, f"outputs[{index}]")

    def write(self, values: Mapping[str, Tensor]) -> None:
        """Writes the output. Raises BadTensor if it does not fit, BadOutput if the model returned no such output."""
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
