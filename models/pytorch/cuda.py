"""Every call of CUDA that serving makes: streams, events, pinned memory, graphs. Behind protocols, so that the code
that pipelines batches runs without a GPU too, on `models.pytorch.scripted.ScriptedDevice`.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch

from models.pytorch.errors import cuda_works

T = TypeVar("T")


class Event(Protocol):
    """A point in a stream's work; recorded anew for every batch."""

    def wait(self) -> None:
        """Returns when the device has passed it. Raises what went wrong on the device before."""
        ...

    def ns_since(self, earlier: Any) -> int:
        """By the device's clock; both have passed."""
        ...


class Stream(Protocol):
    """Work that the device does in order. Nothing here waits for the device, `synchronize` excepted."""

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None: ...

    def run(self, work: Callable[[], T]) -> T:
        """Calls `work`; the kernels it starts belong to this stream."""
        ...

    def replay(self, graph: object) -> None: ...

    def record(self, event: Any) -> None: ...

    def wait(self, event: Any) -> None:
        """What is enqueued after this begins when the event has passed."""
        ...

    def synchronize(self) -> None: ...


class Device(Protocol):
    """A device that computes while the host does something else.

    home: where the weights of its modules live.
    """

    name: str
    home: torch.device

    def memory(self) -> tuple[int, int]:
        """Bytes that are free, and all that it has."""
        ...

    def limit(self, share: float) -> None:
        """This process gets no more than that part of its memory from now on."""
        ...

    def settle(self) -> None:
        """Returns when all is done that was asked of it outside its streams: they know nothing of it, and would read
        weights that are still being written. Waits for the whole device, so only while loading."""
        ...

    def stream(self) -> Stream: ...

    def event(self) -> Event: ...

    def host_memory(self, size: int) -> torch.Tensor:
        """So many bytes that the device can copy by itself."""
        ...

    def device_memory(self, size: int) -> torch.Tensor: ...

    def capture(self, stream: Any, work: Callable[[], object]) -> object:
        """`work` as a graph for `Stream.replay`. All graphs share one pool of memory, so only one is replayed at a
        time, and what a replay leaves there the next one overwrites. Raises where `work` waits for the device."""
        ...

    def works(self) -> bool:
        """Whether it still answers, after an error."""
        ...

    def give_back(self) -> None:
        """All memory that nobody uses any more, what was kept for graphs included: others may want it."""
        ...


class CudaEvent:
    """Waiting sleeps until the driver wakes the thread. Polling would answer a lone request a little sooner,
    and take a core from the event loop for as long as the device computes."""

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
    """device: with its index."""

    def __init__(self, device: torch.device) -> None:
        self.name = str(device)
        self.home = device
        # One pool for all graphs (as long as captures succeed), and a graph that keeps it when all others are dropped.
        self._pool: Any = None
        self._anchor: Any = None

    def memory(self) -> tuple[int, int]:
        return torch.cuda.mem_get_info(self.home)

    def limit(self, share: float) -> None:
        torch.cuda.set_per_process_memory_fraction(share, self.home)

    def settle(self) -> None:
        torch.cuda.synchronize(self.home)

    def stream(self) -> CudaStream:
        return CudaStream(self.home)

    def event(self) -> CudaEvent:
        return CudaEvent()

    def host_memory(self, size: int) -> torch.Tensor:
        with torch.inference_mode(False):  # wherever it is asked for: what is made in inference mode stays there
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
            # torch.cuda.graph() would collect garbage and wait for the whole device around each of many captures.
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                work()
            except BaseException:
                self._end_quietly(graph)
                raise
            graph.capture_end()
        return graph

    def _end_quietly(self, graph: torch.cuda.CUDAGraph) -> None:
        """Ends a capture that failed; that this fails too says nothing new.

        But it leaves torch's allocator and its source of random numbers believing that the capture goes on: the pool
        is of no use for another one, and the next random number would raise.
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
        # As long as one graph holds the pool, none of its memory goes back.
        self._anchor = None
        torch.cuda.empty_cache()
