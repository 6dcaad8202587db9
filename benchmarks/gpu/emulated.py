"""A made-up GPU that takes as long as an H200 took, for finding out on any machine what the host adds to that.

Everything else is real: slabs, streams and events of the pipeline, both threads of the lane, the engine, its event loop
and the clients. Answers are zeros. The times are those of `docs/benchmarks/gpu.json`.
"""

import time
from collections.abc import Callable
from time import perf_counter_ns
from typing import TypeVar

import torch
from torch import nn

from benchmarks.gpu.models import LONGEST, Subject
from models.base import Model
from models.pytorch.runner import load_module

T = TypeVar("T")

EMULATED = "EMULATED: a made-up device that only takes an H200's times. No number here is a GPU's."
CALL_NS = 6_000  # what the host needs to ask for anything, holding the interpreter
BYTES_PER_NS = 50
EAGER_NS = 4_000_000  # what launching kernel by kernel takes at least
LAWS = {  # ns per batch, and per row (of the encoder: per word)
    "mlp": (60_000, 1_400),
    "convnet": (850_000, 60_000),
    "encoder": (600_000, 420),
    "transformer": (550_000, 89_000),
}


class EmulatedModule(nn.Module):
    """As many zeros as the real one would return. Tells the device how long that takes."""

    def __init__(self, name: str, size: int, device: "EmulatedDevice", *, has_words: bool) -> None:
        super().__init__()
        self._fixed_ns, self._per_ns = LAWS[name]
        self._size = size
        self._device = device
        self._has_words = has_words
        if has_words:
            self.max_length = LONGEST

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._device.owed_ns += self._fixed_ns + self._per_ns * len(x) * (x.shape[1] if self._has_words else 1)
        return torch.zeros(len(x), self._size)


class EmulatedEvent:
    def __init__(self) -> None:
        self.at_ns = 0

    def wait(self) -> None:
        _call()
        left_ns = self.at_ns - perf_counter_ns()
        if left_ns > 0:
            time.sleep(left_ns / 1e9)

    def ns_since(self, earlier: "EmulatedEvent") -> int:
        return self.at_ns - earlier.at_ns


class EmulatedStream:
    """free_ns: when it will have done all that it was asked for. What is asked is done at once, and seems to be later:
    nobody looks before the event behind it has passed."""

    def __init__(self, device: "EmulatedDevice") -> None:
        self._device = device
        self.free_ns = 0

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        self._work(source.numel() / BYTES_PER_NS)

    def run(self, work: Callable[[], T]) -> T:
        with torch.inference_mode():
            result = work()
        self._work(max(self._device.take_owed_ns(), EAGER_NS))
        return result

    def replay(self, graph: object) -> None:
        assert isinstance(graph, int)
        self._work(graph)

    def record(self, event: EmulatedEvent) -> None:
        _call()
        event.at_ns = max(self.free_ns, perf_counter_ns())

    def wait(self, event: EmulatedEvent) -> None:
        _call()
        self.free_ns = max(self.free_ns, event.at_ns)

    def synchronize(self) -> None:
        time.sleep(max(0, self.free_ns - perf_counter_ns()) / 1e9)

    def _work(self, took_ns: float) -> None:
        _call()
        self.free_ns = int(max(self.free_ns, perf_counter_ns()) + took_ns)


class EmulatedDevice:
    """owed_ns: what has been asked to compute and not been waited for by any stream."""

    name = "emulated"
    home = torch.device("cpu")

    def __init__(self) -> None:
        self.owed_ns = 0

    def take_owed_ns(self) -> int:
        owed_ns, self.owed_ns = self.owed_ns, 0
        return owed_ns

    def stream(self) -> EmulatedStream:
        return EmulatedStream(self)

    def event(self) -> EmulatedEvent:
        return EmulatedEvent()

    def host_memory(self, size: int) -> torch.Tensor:
        return torch.zeros(size, dtype=torch.uint8)

    def device_memory(self, size: int) -> torch.Tensor:
        return torch.zeros(size, dtype=torch.uint8)

    def capture(self, stream: EmulatedStream, work: Callable[[], object]) -> object:
        with torch.inference_mode():
            work()
        return self.take_owed_ns()

    def memory(self) -> tuple[int, int]:
        return 1 << 40, 1 << 40

    def limit(self, share: float) -> None: ...

    def settle(self) -> None: ...

    def works(self) -> bool:
        return True

    def give_back(self) -> None: ...


def _call() -> None:
    until_ns = perf_counter_ns() + CALL_NS
    while perf_counter_ns() < until_ns:
        pass


def emulated_model(subject: Subject) -> Model:
    """A model of these inputs and outputs on a device of its own."""
    (inputs,), (outputs,) = subject.spec.inputs, subject.spec.outputs
    device = EmulatedDevice()
    module = EmulatedModule(subject.name, outputs.shape[-1], device, has_words=inputs.pad is not None)
    return load_module(subject.spec, module, device)
