"""A device that only pretends to be asynchronous: a `models.pytorch.cuda.Device` in the CPU's memory, for tests.

It does nothing until somebody waits for it, and then as little as it must, stream by stream in an order drawn from a
seed: whatever a real device may do early or late, it does for some seed. Fresh memory holds garbage.
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
    """error: what went wrong in the work that it stands behind."""

    def __init__(self, device: "ScriptedDevice") -> None:
        self._device = device
        self.recorded = 0  # how often that was asked for
        self.passed = 0  # how often the device came by
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
    """steps: what it still has to do. A step says whether it could be done now.

    An error spoils what follows up to where the stream waits for another batch's event, or, where it never waits, up to
    the next event.
    """

    def __init__(self, device: "ScriptedDevice") -> None:
        self._device = device
        self.steps: deque[Callable[[], bool]] = deque()
        self.error: Exception | None = None
        self._follows = False

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        self._do_later("copy", lambda: target.copy_(source))

    def run(self, work: Callable[[], T]) -> T:
        """The device is quick for once: what `work` returns can be looked at."""
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
    """on_step: told of each step as it begins, by its kind and number of that kind, from 0; may raise. Kinds are `run`,
    `capture` and `synchronize`, which happen at once; `copy` and `replay`, which happen when the device comes to them;
    `enqueue copy` and `enqueue replay`, when they are asked for; and `settle`.
    total_bytes: of its memory, of which only what `device_memory` gave out is ever used.
    gate: while it is a cleared Event, whoever waits for the device waits in it.
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
        found = torch.full((size,), GARBAGE, dtype=torch.uint8)
        self._given.append((weakref.ref(found), size))
        return found

    def memory(self) -> tuple[int, int]:
        return self.total_bytes - sum(size for given, size in self._given if given() is not None), self.total_bytes

    def limit(self, share: float) -> None:
        self.share = share

    def settle(self) -> None:
        self.begin("settle")

    def give_back(self) -> None:
        """There is no cache: what nobody holds is free at once."""

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
        """Counts a step and follows the script. A device that is lost fails whatever it is asked."""
        if self.lost:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        with self._lock:
            number = self.counts[kind]
            self.counts[kind] += 1
            self.now_ns += STEP_NS
        self._on_step(kind, number)

    def advance(self, event: ScriptedEvent) -> None:
        """Works, on whichever stream, until it has passed the event as last recorded."""
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
