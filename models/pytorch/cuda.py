"""All calls of CUDA made while serving: streams, events, pinned memory, graphs. They are behind protocols, so that the
code that pipelines batches also runs without a GPU, on `models.pytorch.scripted.ScriptedDevice`.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch

from models.pytorch.errors import cuda_works

T = TypeVar("T")


class Event(Protocol):
    """A point in a stream's work, recorded again for every batch."""

    def wait(self) -> None:
        """Waits until the device has passed the event. Raises an error that occurred on the device before it."""
        ...

    def ns_since(self, earlier: Any) -> int:
        """Returns the time since an earlier event, by the device's clock. Both events must have passed."""
        ...


class Stream(Protocol):
    """A queue of work that the device does in order. Only `synchronize` waits for the device."""

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None: ...

    def run(self, work: Callable[[], T]) -> T:
        """Calls `work` and enqueues the kernels that it launches on this stream."""
        ...

    def replay(self, graph: object) -> None: ...

    def record(self, event: Any) -> None: ...

    def wait(self, event: Any) -> None:
        """Has work that is enqueued later start after the event has passed."""
        ...

    def synchronize(self) -> None: ...


class Device(Protocol):
    """A device that computes while the host does something else.

    home: the torch device of its modules' weights.
    """

    name: str
    home: torch.device

    def memory(self) -> tuple[int, int]:
        """Returns free and total bytes."""
        ...

    def limit(self, share: float) -> None:
        """Limits this process to that share of the device's memory, from 0 to 1."""
        ...

    def refresh(self) -> None:
        """Waits for work outside the device's streams. The streams are not ordered after it and could read weights
        that are still being written. Waits for the whole device, so it is called only while loading."""
        ...

    def stream(self) -> Stream: ...

    def event(self) -> Event: ...

    def host_memory(self, size: int) -> torch.Tensor:
        """Allocates this many bytes of pinned host memory, which the device copies by itself."""
        ...

    def device_memory(self, size: int) -> torch.Tensor: ...

    def capture(self, stream: Any, work: Callable[[], object]) -> object:
        """Captures `work` as a graph for `Stream.replay`. All graphs share one memory pool, so only one may be replayed
        at a time, and each replay overwrites the results of the previous one there. Raises if `work` waits for the
        device."""
        ...

    def works(self) -> bool:
        """Returns whether the device still works after an error."""
        ...

    def give_back(self) -> None:
        """Frees unused memory, including the pool of dropped graphs, for other processes."""
        ...


class CudaEvent:
    """A CUDA event. Waiting blocks until the driver wakes the thread. Polling would answer a single request slightly
    sooner, but take a core from the event loop while the device computes."""

    def __init__(self) -> None:
        self.cuda = torch.cuda.Event(enable_timing=True, blocking=True)  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        self.cuda.synchronize()

    def ns_since(self, earlier: "CudaEvent") -> int:
        return int(earlier.cuda.elapsed_time(self.cuda) * 1e6)


class CudaStream:
    def __init__(self, device: torch.device) -> None:
        self.cuda = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        with torch.cuda.stream(self.cuda):
            target.copy_(source, non_blocking=True)

    def run(self, work: Callable[[], T]) -> T:
        with torch.cuda.stream(self.cuda), torch.inference_mode():
            return work()

    def replay(self, graph: object) -> None:
        with torch.cuda.stream(self.cuda):
            graph.replay()  # type: ignore[attr-defined]

    def record(self, event: CudaEvent) -> None:
        event.cuda.record(self.cuda)

    def wait(self, event: CudaEvent) -> None:
        self.cuda.wait_event(event.cuda)

    def synchronize(self) -> None:
        self.cuda.synchronize()


class CudaDevice:
    """A CUDA device.

    device: the torch device, with its index.
    """

    def __init__(self, device: torch.device) -> None:
        self.name = str(device)
        self.home = device
        # One memory pool for all graphs, until a capture fails, and a graph that keeps the pool when all others are
        # dropped.
        self._pool: Any = None
        self._anchor: Any = None

    def memory(self) -> tuple[int, int]:
        return torch.cuda.mem_get_info(self.home)

    def limit(self, share: float) -> None:
        torch.cuda.set_per_process_memory_fraction(share, self.home)

    def refresh(self) -> None:
        torch.cuda.synchronize(self.home)

    def stream(self) -> CudaStream:
        return CudaStream(self.home)

    def event(self) -> CudaEvent:
        return CudaEvent()

    def host_memory(self, size: int) -> torch.Tensor:
        with torch.inference_mode(False):  # the caller may be in inference mode, but no inference tensor is wanted
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)

    def device_memory(self, size: int) -> torch.Tensor:
        with torch.inference_mode(False):
            return torch.empty(size, dtype=torch.uint8, device=self.home)

    def capture(self, stream: CudaStream, work: Callable[[], object]) -> object:
        if self._anchor is None:
            with torch.cuda.device(self.home):
                self._pool = torch.cuda.graph_pool_handle()
            self._anchor = self._captured(stream, lambda: torch.zeros(1, device=self.home))
        return self._captured(stream, work)

    def _captured(self, stream: CudaStream, work: Callable[[], object]) -> Any:
        graph = torch.cuda.CUDAGraph()
        stream.synchronize()
        with torch.cuda.stream(stream.cuda), torch.inference_mode():
            # torch.cuda.graph() would collect garbage and wait for the whole device at each of many captures.
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                work()
            except BaseException:
                self._end_quietly(graph)
                raise
            graph.capture_end()
        return graph

    def _end_quietly(self, graph: torch.cuda.CUDAGraph) -> None:
        """Ends a failed capture. Ignores that this fails too, since the caller raises the first error.

        The failure leaves torch's allocator and random number generator in the state of a running capture: the pool
        cannot be used for another capture, and the next random number would raise. Both are replaced.
        """
        try:
            graph.capture_end()
        except RuntimeError:
            self._anchor = None
            fresh = torch.Generator(self.home)
            fresh.seed()
            torch.cuda.default_generators[self.home.index].graphsafe_set_state(fresh.graphsafe_get_state())

    def works(self) -> bool:
        return cuda_works(self.home)

    def give_back(self) -> None:
        # The pool's memory is freed only when no graph holds the pool.
        self._anchor = None
        torch.cuda.empty_cache()
