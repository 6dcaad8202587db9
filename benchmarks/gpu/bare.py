"""Torch alone, without Headway's code: the device's time per batch eagerly, as a graph and compiled, and its copies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter_ns

import torch
from torch import nn

WARM_RUNS = 3
LEAST_COPIES = 0.02  # of the time that computing takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Milliseconds per batch, with inputs and outputs on the device; None: not tried, or failed.

    difference: between the outputs of the graph and of the eager module, as a share of the output's 2-norm.
    """

    rows: int
    length: int
    eager_ms: float
    graphed_ms: float | None = None
    compiled_ms: float | None = None
    difference: float | None = None

    def __str__(self) -> str:
        ways = {"eager": self.eager_ms, "graphed": self.graphed_ms, "compiled": self.compiled_ms}
        said = ", ".join(f"{way} {ms:.3f} ms" for way, ms in ways.items() if ms is not None)
        return f"{self.rows:3d} x {self.length}: {said}"

    @property
    def best_ms(self) -> float:
        return min(ms for ms in (self.eager_ms, self.graphed_ms, self.compiled_ms) if ms is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """Milliseconds of copying one batch from and to pinned memory, alone on the device; and per batch of a pipeline
    that computes a graph while the next batch is copied in and the previous one copied out."""

    in_ms: float
    out_ms: float
    compute_ms: float
    pipelined_ms: float

    def __str__(self) -> str:
        hidden = "too short to measure" if self.hidden_share is None else f"{self.hidden_share:.0%} hidden"
        return (
            f"Copies in {self.in_ms:.3f} ms, out {self.out_ms:.3f} ms, computing {self.compute_ms:.3f} ms, pipelined "
            f"{self.pipelined_ms:.3f} ms: {hidden}"
        )

    @property
    def hidden_share(self) -> float | None:
        """The share of copying that is hidden behind computing: 1 if copies cost nothing, 0 if they are not overlapped.
        None if the copies are shorter than the variation of computing times."""
        copies_ms = self.in_ms + self.out_ms
        if copies_ms < LEAST_COPIES * self.compute_ms:
            return None
        return max(0.0, min(1.0, 1 - (self.pipelined_ms - self.compute_ms) / copies_ms))


def measure(module: nn.Module, inputs: torch.Tensor, length: int, seconds: float, *, compiled: bool) -> Times:
    rows = len(inputs)
    with torch.inference_mode():
        if inputs.device.type == "cpu":
            return Times(rows=rows, length=length, eager_ms=_host_ms(lambda: module(inputs), seconds))
        eager_ms = _device_ms(lambda: module(inputs), seconds)
        expected = module(inputs)
        graph, output = captured(module, inputs)
        graphed_ms = _device_ms(graph.replay, seconds)
        difference = float((output - expected).norm() / expected.norm())
        compiled_ms = None
        if compiled:
            fast = torch.compile(module, dynamic=False)
            fast(inputs)
            compiled_graph, _ = captured(fast, inputs)
            compiled_ms = _device_ms(compiled_graph.replay, seconds)
    return Times(
        rows=rows, length=length, eager_ms=eager_ms, graphed_ms=graphed_ms, compiled_ms=compiled_ms,
        difference=difference,
    )  # fmt: skip


def captured(module: Callable[..., torch.Tensor], inputs: torch.Tensor) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's own
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_RUNS):
            module(inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = module(inputs)
    graph.replay()
    return graph, output


def copies(module: nn.Module, inputs: torch.Tensor, seconds: float) -> Copies:
    """Measures the copies. inputs: on the host. Uses two slots, three streams and events between them; the host only
    waits."""
    slots = []
    with torch.inference_mode():
        for _ in range(2):
            host, device = inputs.pin_memory(), inputs.to("cuda")
            graph, output = captured(module, device)
            slots.append((host, device, graph, output, torch.empty_like(output, device="cpu").pin_memory()))
        host, device, graph, output, host_output = slots[0]
        in_ms = _device_ms(lambda: device.copy_(host, non_blocking=True), seconds / 4)
        out_ms = _device_ms(lambda: host_output.copy_(output, non_blocking=True), seconds / 4)
        compute_ms = _device_ms(graph.replay, seconds)
        return Copies(in_ms=in_ms, out_ms=out_ms, compute_ms=compute_ms, pipelined_ms=_pipeline(slots, seconds))


def _pipeline(slots: Sequence[tuple], seconds: float) -> float:  # type: ignore[type-arg]
    into, compute, out = (torch.cuda.Stream() for _ in range(3))  # type: ignore[no-untyped-call]  # torch's own
    events = [[torch.cuda.Event() for _ in range(3)] for _ in slots]  # type: ignore[no-untyped-call]  # torch's own
    torch.cuda.synchronize()
    began, count = perf_counter_ns(), 0
    while perf_counter_ns() - began < seconds * 1e9:
        (host, device, graph, output, host_output), (arrived, computed, left) = slots[count % 2], events[count % 2]
        left.synchronize()
        with torch.cuda.stream(into):
            device.copy_(host, non_blocking=True)
            arrived.record()
        with torch.cuda.stream(compute):
            compute.wait_event(arrived)
            graph.replay()
            computed.record()
        with torch.cuda.stream(out):
            out.wait_event(computed)
            host_output.copy_(output, non_blocking=True)
            left.record()
        count += 1
    torch.cuda.synchronize()
    return (perf_counter_ns() - began) / count / 1e6


def _device_ms(work: Callable[[], object], seconds: float) -> float:
    """Returns the milliseconds of work run back to back, by the device's clock. Launching counts only if the device has
    to wait for it."""
    for _ in range(WARM_RUNS):
        work()
    began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's own
    began.record()
    work()
    ended.record()
    ended.synchronize()
    runs = max(5, min(1000, int(seconds * 1e3 / 3 / max(began.elapsed_time(ended), 1e-3))))
    times: list[float] = []
    for _ in range(3):
        began.record()
        for _ in range(runs):
            work()
        ended.record()
        ended.synchronize()
        times.append(began.elapsed_time(ended) / runs)
    return median(times)


def _host_ms(work: Callable[[], object], seconds: float) -> float:
    work()
    times: list[float] = []
    began = perf_counter_ns()
    while not times or perf_counter_ns() - began < seconds * 1e9:
        before = perf_counter_ns()
        work()
        times.append((perf_counter_ns() - before) / 1e6)
    return median(times)
