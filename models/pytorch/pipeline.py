"""Pipelines batches through an asynchronous device, two at a time: while one is computed, the next is copied in and the
previous one copied out, each on its own stream.

A slot holds what one batch in flight needs: pinned and device memory for its inputs and outputs, events, and CUDA
graphs that use this memory. It is reused only after its batch has been collected, so a batch never overwrites memory
that another still reads, and memory is bounded by the two largest batches.
"""

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from models.base import Bucket, Collected, Prepared
from models.collate import Pads, collate
from models.pytorch.cuda import Device
from models.pytorch.execution import Compute, arguments, closed, named, not_a_tensor
from models.pytorch.slab import Layout, input_layout, output_layout

SLOTS = 2  # batches in flight

Tensors = dict[str, torch.Tensor]


class Captured(NamedTuple):
    """A graph and the memory that it reads and writes."""

    graph: object
    inputs: torch.Tensor
    outputs: torch.Tensor
    output_layout: Layout


class Slot:
    def __init__(self, device: Device) -> None:
        self._device = device
        self.sent, self.arrived, self.began, self.computed, self.done = [device.event() for _ in range(5)]
        self.graphs: dict[Hashable, Captured] = {}
        self.host_inputs = self.host_outputs = self.inputs = self.outputs = torch.empty(0, dtype=torch.uint8)

    def reserve_inputs(self, size: int) -> None:
        if len(self.host_inputs) < size:
            self.host_inputs = self._device.host_memory(size)
            self.inputs = self._device.device_memory(size)

    def reserve_outputs(self, size: int) -> None:
        if len(self.host_outputs) < size:
            self.host_outputs = self._device.host_memory(size)
            self.outputs = self._device.device_memory(size)


class Staged(NamedTuple):
    slot: Slot
    key: Hashable
    layout: Layout


class Launched(NamedTuple):
    slot: Slot
    layout: Layout


class PipelinedExecution:
    """The execution on an asynchronous device. `stage` and `launch` are called from one thread, `collect` from any. The
    parameters are those of `DirectExecution`."""

    asynchronous = True
    writes_inputs = False  # they are copied to the device anyway

    def __init__(
        self,
        compute: Compute,
        device: Device,
        output_names: Sequence[str],
        keep: frozenset[str] | None = None,
        input_names: Sequence[str] | None = None,
    ) -> None:
        self.compute = compute
        self._input_names = input_names
        self._device = device
        self._output_names = tuple(output_names)
        self._keep = keep
        self._copies_in, self._computes, self._copies_out = device.stream(), device.stream(), device.stream()
        self._slots = [Slot(device) for _ in range(SLOTS)]
        self._free = list(self._slots)

    # -- a batch ----------------------------------------------------------------------------------------------

    def stage(self, parts: Sequence[Prepared], bucket: Bucket, pads: Pads) -> Staged:
        """Copies the rows directly into pinned memory."""
        # If more batches were in flight than slots, the others would be computed correctly, but without graphs.
        return self._stage(self._free.pop() if self._free else Slot(self._device), parts, bucket, pads)

    def launch(self, staged: object, **parameters: Any) -> Launched:
        assert isinstance(staged, Staged)
        slot, key, layout = staged
        captured = slot.graphs.get(key)
        inputs = captured.inputs if captured else slot.inputs
        try:
            self._copies_in.record(slot.sent)
            self._copies_in.copy(inputs[: layout.size], slot.host_inputs[: layout.size])
            self._copies_in.record(slot.arrived)
            self._computes.wait(slot.arrived)
            self._computes.record(slot.began)
            if captured:
                self._computes.replay(captured.graph)
                outputs, result = captured.outputs, captured.output_layout
            else:
                result = self._computes.run(partial(self._compute_eagerly, slot, layout, parameters))
                outputs = slot.outputs
            self._computes.record(slot.computed)
            self._copies_out.wait(slot.computed)
            self._copies_out.copy(slot.host_outputs[: result.size], outputs[: result.size])
            self._copies_out.record(slot.done)
        except BaseException:
            self._quiet(slot)
            raise
        return Launched(slot, result)

    def collect(self, launched: object) -> Collected:
        """Waits for the batch and copies its outputs out of pinned memory, so that the slot is free even if clients are
        slow."""
        assert isinstance(launched, Launched)
        slot, layout = launched
        try:
            slot.done.wait()
            outputs = {name: array.copy() for name, array in layout.arrays(slot.host_outputs.numpy()).items()}
            copy_ns, compute_ns = slot.arrived.ns_since(slot.sent), slot.computed.ns_since(slot.began)
            copy_back_ns = slot.done.ns_since(slot.computed)
        except BaseException:
            self._quiet(slot)
            raise
        self._give_back(slot)
        return Collected(outputs, copy_ns, compute_ns, copy_back_ns)

    def refresh(self) -> None:
        self._device.refresh()

    def close(self) -> None:
        self.compute = closed
        self._slots.clear()
        self._free.clear()

    # -- graphs -----------------------------------------------------------------------------------------------

    def capture(self, part: Prepared, bucket: Bucket, pads: Pads, *, slots: int = SLOTS) -> None:
        """Captures graphs, in this many slots, for later batches of this shape. No batch may be in flight."""
        for slot in self._slots[:slots]:
            key = _key(part, bucket)
            if key in slot.graphs:
                continue
            self._free.remove(slot)
            layout = self._stage(slot, [part], bucket, pads).layout
            first = self.launch(Staged(slot, None, layout))  # libraries initialize themselves in the first run
            self.collect(first)
            inputs, targets = layout.tensors(slot.inputs), first.layout.tensors(slot.outputs)
            graph = self._device.capture(self._computes, partial(self._compute_into, self.compute, inputs, targets))
            slot.graphs[key] = Captured(graph, slot.inputs, slot.outputs, first.layout)

    def forget(self, keep: frozenset[Bucket] = frozenset()) -> None:
        """Drops all graphs but those of these buckets."""
        for slot in self._slots:
            slot.graphs = {key: graph for key, graph in slot.graphs.items() if key[0] in keep}  # type: ignore[index]

    # -- inside -----------------------------------------------------------------------------------------------

    def _stage(self, slot: Slot, parts: Sequence[Prepared], bucket: Bucket, pads: Pads) -> Staged:
        try:
            layout = input_layout(parts[0], bucket, pads)
            slot.reserve_inputs(layout.size)
            arrays = layout.arrays(slot.host_inputs.numpy())
            collate(parts, bucket, pads, lambda name, shape, dtype: arrays[name])
        except BaseException:
            self._give_back(slot)
            raise
        return Staged(slot, _key(parts[0], bucket), layout)

    def _compute_eagerly(self, slot: Slot, layout: Layout, parameters: Mapping[str, Any]) -> Layout:
        results = self._results(partial(self.compute, **parameters), layout.tensors(slot.inputs))
        outputs = output_layout(results)
        slot.reserve_outputs(outputs.size)
        for name, target in outputs.tensors(slot.outputs).items():
            target.copy_(results[name])
        return outputs

    def _compute_into(self, compute: Compute, inputs: Tensors, targets: Tensors) -> None:
        """Computes and copies the results into the slot's memory. In the pool shared by all graphs, the next replay
        would overwrite them."""
        results = self._results(compute, inputs)
        for name, target in targets.items():
            target.copy_(results[name])

    def _results(self, compute: Compute, inputs: Tensors) -> Tensors:
        results = named(compute(*arguments(inputs, self._input_names)), self._output_names)
        if self._keep is not None:
            results = {name: result for name, result in results.items() if name in self._keep}
        for name, result in results.items():
            if not isinstance(result, torch.Tensor):
                raise not_a_tensor(name, result)
        return results

    def _give_back(self, slot: Slot) -> None:
        if slot in self._slots:
            self._free.append(slot)

    def _quiet(self, slot: Slot) -> None:
        """Waits, after an error, until no work of the slot's batch is running, and frees the slot."""
        try:
            for stream in (self._copies_in, self._computes, self._copies_out):
                stream.synchronize()
        except RuntimeError:
            return  # the device is lost, which the first error reports; the slot is not reused
        self._give_back(slot)


def _key(part: Prepared, bucket: Bucket) -> Hashable:
    return (bucket, part.group)
