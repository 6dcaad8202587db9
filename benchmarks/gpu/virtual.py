"""A simulated host and lane: the engine's event loop, clock and device in simulated time.

The engine, its driver and its batcher are the real ones. Their work costs the time that was measured for it, and work
that holds the interpreter lock runs one after the other. The same seed gives the same run.
"""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.base import Prepared, Tensors
from models.spec import ModelSpec
from serving.core.batch import Batch
from serving.core.batcher import Batcher
from serving.core.clock import Clock
from serving.runtime.engine import Engine
from serving.runtime.forwarding import Forwarded

US, MS = 1_000, 1_000_000
DeviceNs = Callable[[int, int], float]  # (rows, length) of a batch -> its time in ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The costs in ns that hold the interpreter lock: per request, per batch, and per check of the queue.

    cut_lengths: like `cut`, for a model whose requests differ in length. hop, wake: mean delay until a thread or the
    loop runs; these do not hold the lock. copy: per row of a batch, in a thread, without the lock.
    """

    submit: int = 12 * US
    answer: int = 6 * US
    look: int = 8 * US
    cut: int = 60 * US
    cut_lengths: int = 150 * US
    launch: int = 150 * US
    launch_row: int = 1 * US
    collect: int = 50 * US
    settle: int = 40 * US
    hop: int = 40 * US
    wake: int = 30 * US
    copy: int = 1 * US


class Handle:
    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Host(Clock):
    """An event loop on a simulated clock. Simulated work calls `spend`.

    stall_ns: mean time for which the whole process is blocked, every `stall_every_ns` on average; 0: never.
    """

    def __init__(self, seed: int, stall_every_ns: int = 0, stall_ns: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self._now_ns = 0
        self._calls: list[tuple[int, int, Handle]] = []
        self._numbers = itertools.count()
        self._stall_every_ns, self._stall_ns = stall_every_ns, stall_ns
        self._next_stall_ns = self._until_next_stall()

    def now_ns(self) -> int:
        return self._now_ns

    def spend(self, ns: int) -> None:
        self._now_ns += ns

    def at(self, instant_ns: float, call: Callable[..., object], *arguments: Any) -> Handle:
        handle = Handle(lambda: call(*arguments))
        heapq.heappush(self._calls, (int(instant_ns), next(self._numbers), handle))
        return handle

    def call_soon(self, call: Callable[..., object], *arguments: Any) -> Handle:
        return self.at(self._now_ns, call, *arguments)

    def call_soon_threadsafe(self, call: Callable[..., object], *arguments: Any) -> Handle:
        return self.at(self._now_ns + self.random.exponential(30 * US), call, *arguments)

    def call_later(self, delay_s: float, call: Callable[..., object], *arguments: Any) -> Handle:
        """Schedules a call with uvloop's precision: whole milliseconds, on a clock read once per iteration."""
        delay_ms = round(delay_s * 1e3)
        if delay_ms <= 0:
            return self.call_soon(call, *arguments)
        return self.at((self._now_ns // MS + delay_ms + 1) * MS + 20 * US, call, *arguments)

    def run(self, until_ns: int) -> None:
        while self._calls and self._calls[0][0] <= until_ns:
            instant_ns, _, handle = heapq.heappop(self._calls)
            if handle.is_cancelled:
                continue
            self._now_ns = max(self._now_ns, instant_ns)
            while self._now_ns >= self._next_stall_ns:
                stalled_until = self._next_stall_ns + int(self.random.exponential(self._stall_ns))
                self._now_ns = max(self._now_ns, stalled_until)
                self._next_stall_ns += self._until_next_stall()
            handle.call()

    def _until_next_stall(self) -> int:
        return int(self.random.exponential(self._stall_every_ns)) if self._stall_every_ns else 1 << 62


class VirtualModel:
    """A model without weights and outputs. A request has only a length."""

    asynchronous, prepares, finishes, device = True, False, False, "virtual"

    def __init__(self, spec: ModelSpec, lengths: tuple[int, ...]) -> None:
        self.spec = spec
        self._lengths = lengths

    def prepare(self, inputs: Any) -> Prepared:
        return Prepared({}, 1, None, inputs["length"])

    def lengths(self) -> tuple[int, ...]:
        return self._lengths

    def split(self, outputs: Tensors, parts: list[Prepared]) -> list[Tensors]:
        return [{} for _ in parts]


class VirtualLane:
    """Both threads of a `PipelinedLane` and the device behind them."""

    index = 0

    def __init__(self, model: Any, host: Host, device_ns: DeviceNs, costs: Costs, on_done: Callable[..., None]) -> None:
        self.model = model
        self._host, self._device_ns, self._costs, self._on_done = host, device_ns, costs, on_done
        self._free_ns = 0  # when the device will have computed all that was launched

    def submit(self, batch: Batch, *, lane_is_idle: bool) -> None:
        self._host.at(self._host.now_ns() + self._host.random.exponential(self._costs.hop), self._launch, batch)

    def _launch(self, batch: Batch) -> None:
        host, costs = self._host, self._costs
        began_ns = host.now_ns()
        host.spend(costs.launch + costs.launch_row * batch.rows)
        there_ns = host.now_ns() + costs.copy * batch.rows
        done = Forwarded(batch, prepare_ns=there_ns - began_ns)
        done.compute_ns = int(self._device_ns(batch.padded_rows, batch.length) * host.random.lognormal(0.0, 0.01))
        self._free_ns = max(self._free_ns, there_ns) + done.compute_ns
        host.at(self._free_ns + costs.wake + host.random.exponential(costs.wake), self._collect, done)

    def _collect(self, done: Forwarded) -> None:
        self._host.spend(self._costs.collect)
        done.pieces.append(({}, range(len(done.batch.requests))))
        done.done_ns = self._host.now_ns()
        self._on_done(done)


def engine_on(host: Host, model: Any, device_ns: DeviceNs, costs: Costs, row_ladder: tuple[int, ...]) -> Engine:
    """Returns an open, warmed-up engine, which has learned the time of each size within two percent."""
    engine = Engine([model], clock=host)
    loop: Any = host
    engine._loop = engine._driver._loop = loop
    lane: Any = VirtualLane(model, host, device_ns, costs, engine._driver._report_back)
    engine._driver._lanes = [lane]
    engine.batcher.sizes.row_ladder = row_ladder
    for length in model.lengths():
        for rows in row_ladder:
            for _ in range(3):
                took_ns = int(device_ns(rows, length) * host.random.lognormal(0.0, 0.02))
                engine.batcher.latency.teach(rows, length, took_ns)
    engine._accepting = True
    _charge_for_batches(engine, host, costs)
    return engine


def charge_for_cuts(batcher: Batcher, host: Host, costs: Costs) -> None:
    """Charges the host for each check of the queue, and more for cutting a batch."""
    cut, cut_ns = batcher.cut, costs.cut_lengths if len(batcher.sizes.lengths) > 1 else costs.cut

    def costly(lane_index: int, now_ns: int) -> Any:
        found = cut(lane_index, host.now_ns())
        host.spend(cut_ns if found.batch is not None else costs.look if batcher.queue else US)
        return found

    batcher.cut = costly  # type: ignore[method-assign]


def _charge_for_batches(engine: Engine, host: Host, costs: Costs) -> None:
    returned = engine.batch_returned

    def costly(done: Forwarded, occupied_ns: int) -> None:
        host.spend(costs.settle)
        returned(done, occupied_ns)

    engine.batch_returned = costly  # type: ignore[method-assign]
