"""A simulated asynchronous device for tests: a `models.pytorch.cuda.Device` in the CPU's memory.

It works only when a caller waits for it, and then as little as necessary, in an order of streams drawn from a seed.
Each order that a real device may choose occurs for some seed. New memory is filled with garbage.
"""

import random
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")
GARBAGE = 0xA5
STEP_NS = 1_000


class ScriptedEvent:
    """An event of a scripted device.

    error: an error in the work before the event.
    """

    def __init__(self, device: "ScriptedDevice") -> None:
        self._device = device
        self.recorded = 0  # number of calls of `record`
        self.passed = 0  # number of the last recording that the device has passed
        self.passed_ns = 0
        self.error: Exception | None = None

    def wait(self) -> None:
        self._device.advance(self)
        if self.error is not None:
            raise self.error

    def ns_since(self, earlier: "ScriptedEvent") -> int:
        assert self.passed == self.recorded, "the event has not passed"
        return self.passed_ns - earlier.passed_ns


class ScriptedStream:
    """A stream of a scripted device.

    steps: the work to do. A step returns whether it could be done now.

    After an error, work is skipped until the stream waits for another batch's event, or, if it never waits, until the
    next event.
    """

    def __init__(self, device: "ScriptedDevice") -> None:
        self._device = device
        self.steps: deque[Callable[[], bool]] = deque()
        self.error: Exception | None = None
        self._follows = False

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        self._do_later("copy", lambda: target.copy_(source))

    def run(self, work: Callable[[], T]) -> T:
        """Calls `work` at once, after all earlier steps, so that its result can be used."""
        self._device.drain(self)
        self._device.begin("run")
        with torch.inference_mode():
            return work()

    def replay(self, graph: object) -> None:
        assert callable(graph)
        self._do_later("replay", graph)

    def record(self, event: ScriptedEvent) -> None:
        event.recorded += 1
        number = event.recorded

        def step() -> bool:
            event.passed, event.passed_ns = number, self._device.now_ns
            event.error = self.error
            if not self._follows:
                self.error = None
            return True

        self.steps.append(step)

    def wait(self, event: ScriptedEvent) -> None:
        number = event.recorded
        self._follows = True

        def step() -> bool:
            if event.passed < number:
                return False
            self.error = event.error
            return True

        self.steps.append(step)

    def synchronize(self) -> None:
        self._device.begin("synchronize")
        self._device.drain(self)

    def _do_later(self, kind: str, work: Callable[[], object]) -> None:
        self._device.begin(f"enqueue {kind}")

        def step() -> bool:
            try:
                self._device.begin(kind)
                if self.error is None:
                    with torch.inference_mode():
                        work()
            except Exception as error:
                self.error = error
            return True

        self.steps.append(step)


class ScriptedDevice:
    """The simulated device.

    on_step: called when a step begins, with its kind and its number among steps of that kind, from 0; may raise. Kinds
    are `run`, `capture` and `synchronize`, which are done at once; `copy` and `replay`, which are done when the stream
    reaches them; `enqueue copy` and `enqueue replay`, when they are enqueued; and `settle`.
    total_bytes: the size of its memory. Only memory from `device_memory` counts as used.
    gate: an Event; while it is cleared, callers that wait for the device are blocked.
    """

    name = "scripted"
    home = torch.device("cpu")

    def __init__(
        self,
        seed: int = 0,
        on_step: Callable[[str, int], None] = lambda kind, number: None,
        total_bytes: int = 1 << 40,
    ) -> None:
        self.total_bytes = total_bytes
        self.share = 1.0
        self._given: list[tuple[weakref.ref[torch.Tensor], int]] = []
        self._random = random.Random(seed)
        self._on_step = on_step
        self._streams: list[ScriptedStream] = []
        self._lock = threading.RLock()
        self.counts: Counter[str] = Counter()
        self.now_ns = 0
        self.lost = False
        self.is_capturing = False
        self.gate = threading.Event()
        self.gate.set()

    def stream(self) -> ScriptedStream:
        self._streams.append(ScriptedStream(self))
        return self._streams[-1]

    def event(self) -> ScriptedEvent:
        return ScriptedEvent(self)

    def host_memory(self, size: int) -> torch.Tensor:
        return torch.full((size,), GARBAGE, dtype=torch.uint8)

    def device_memory(self, size: int) -> torch.Tensor:
        memory = torch.full((size,), GARBAGE, dtype=torch.uint8)
        self._given.append((weakref.ref(memory), size))
        return memory

    def memory(self) -> tuple[int, int]:
        return self.total_bytes - sum(size for given, size in self._given if given() is not None), self.total_bytes

    def limit(self, share: float) -> None:
        self.share = share

    def refresh(self) -> None:
        self.begin("settle")

    def give_back(self) -> None:
        """Does nothing: the device has no cache, so unused memory is freed at once."""

    def capture(self, stream: ScriptedStream, work: Callable[[], object]) -> object:
        self.drain(stream)
        self.begin("capture")
        self.is_capturing = True
        try:
            with torch.inference_mode():
                work()
        finally:
            self.is_capturing = False
        return work

    def works(self) -> bool:
        return not self.lost

    def begin(self, kind: str) -> None:
        """Counts a step and calls `on_step`. Raises RuntimeError if the device is lost."""
        if self.lost:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        with self._lock:
            number = self.counts[kind]
            self.counts[kind] += 1
            self.now_ns += STEP_NS
        self._on_step(kind, number)

    def advance(self, event: ScriptedEvent) -> None:
        """Does steps of any stream until the event's last recording has passed."""
        self.gate.wait()
        with self._lock:
            while event.passed < event.recorded:
                self._step()
        if self.lost:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def drain(self, stream: ScriptedStream) -> None:
        with self._lock:
            while stream.steps:
                self._step()

    def _step(self) -> None:
        busy = [stream for stream in self._streams if stream.steps]
        self._random.shuffle(busy)
        for stream in busy:
            if stream.steps[0]():
                stream.steps.popleft()
                return
        raise AssertionError("the streams wait for each other, or for an event that was never recorded")
