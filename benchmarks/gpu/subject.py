"""Measures one model, section by section. A failure of a section is recorded, and the next section runs."""

import asyncio
import dataclasses
import gc
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cached_property
from importlib import import_module
from time import perf_counter
from typing import Any

import numpy as np
import torch

from benchmarks.gpu import bare, goodput
from benchmarks.gpu.correctness import differences, inputs_of
from benchmarks.gpu.load import saturate, single_request_ns
from benchmarks.gpu.models import Subject
from benchmarks.gpu.offline import back_to_back
from benchmarks.gpu.report import Results
from benchmarks.gpu.watch import watched
from models.base import Model
from models.loading import find_factory
from serving.runtime.engine import Engine

SECTIONS = ("correct", "offline", "saturated", "goodput", "bare")
REQUESTS = 256  # different ones
SWITCH_INTERVAL_S = 0.0001  # as in replicas: serving/cluster/replica/replica.py gives the reason
IN_FLIGHT = 6  # for saturation, in batches
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def requests_for(subject: Subject) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(1)
    return [subject.request(random) for _ in range(REQUESTS)]


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Returns the factory of uvloop, the event loop of replicas, if it is installed."""
    try:
        return import_module("uvloop").new_event_loop  # type: ignore[no-any-return]
    except ImportError:
        return None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a run.

    seconds: for each measurement of the engine; the others take a fraction of it.
    compile_s: another size is compiled only while compiling took less than this in total; 0: never.
    subjects, load: the models by name, and the function that loads one.
    until: by `perf_counter`: no section starts later, and a running one is interrupted.
    """

    seconds: float
    compile_s: float
    device: torch.device
    sections: tuple[str, ...]
    subjects: Callable[[], dict[str, Subject]]
    load: Callable[[Subject], Model]
    until: float

    def left_s(self) -> float:
        left = self.until - perf_counter()
        if left <= 0:
            raise TimeoutError("out of time")
        return left


async def measure(subject: Subject, options: Options, results: Results) -> bool:
    """Measures a model and returns whether all sections succeeded with correct answers. Failures are recorded, and
    earlier results are kept: a GPU that is lost in one section fails all later calls, including closing the model."""
    print(f"\n{subject.name}: {subject.about}", flush=True)
    try:
        return await noted(subject.name, "model", results, _measure(subject, options, results))
    finally:
        gc.unfreeze()
        gc.collect()
        if options.device.type == "cuda":
            with suppress(RuntimeError):  # raised by a lost GPU, which is already recorded
                torch.cuda.empty_cache()


async def noted(name: str, section: str, results: Results, work: Awaitable[bool | None]) -> bool:
    """Awaits `work` and returns whether it succeeded. Records a failure."""
    try:
        return await work is not False
    except Exception as error:
        traceback.print_exc()
        results.fail(name, section, (str(error) or type(error).__name__).splitlines()[0])
        return False


async def _measure(subject: Subject, options: Options, results: Results) -> bool:
    options.left_s()
    began = perf_counter()
    said: list[str] = []
    async with Engine([options.load(subject)], report=said.append) as engine:
        gc.collect()
        gc.freeze()
        facts: dict[str, Any] = getattr(engine.model, "facts", dict)()
        results.put(subject.name, "load", {"seconds": perf_counter() - began, "said": said, "facts": facts})
        one = Measured(subject, options, results, engine)
        ladder = engine.batcher.sizes.row_ladder or "any"
        one.say(
            f"loaded in {perf_counter() - began:.1f} s: {facts.get('execution', 'plain')}; rows of a batch: {ladder}"
        )
        well = True
        for section in options.sections:
            well &= await noted(subject.name, section, results, one.measured(section))
    return well


class Measured:
    """A loaded model. Each section prints and writes its results."""

    def __init__(self, subject: Subject, options: Options, results: Results, engine: Engine) -> None:
        self.subject = subject
        self.options = options
        self.engine = engine
        self._results = results
        self._rates: dict[str, Any] = {}
        self._payloads = requests_for(subject)

    @cached_property
    def _module(self) -> torch.nn.Module:
        return self._made()

    def _made(self, **options: Any) -> torch.nn.Module:
        """Returns another copy of the model's module; `options` that the model does not have are ignored."""
        own = self.subject.spec.options
        made: Any = find_factory(self.subject.spec.factory)(**{name: options.get(name, own[name]) for name in own})
        module: torch.nn.Module = made.to(self.options.device).eval()
        return module

    async def measured(self, section: str) -> bool | None:
        try:
            async with asyncio.timeout(self.options.left_s()):
                found: bool | None = await getattr(self, section)()
                return found
        except TimeoutError as error:
            raise TimeoutError("out of time") from error

    def say(self, text: str) -> None:
        print(f"  {text}", flush=True)

    async def correct(self) -> bool:
        tolerance = self.subject.tolerance
        device = self.options.device
        exact = self._made(half=False)
        found = await differences(self.engine, self._module, exact, device, self._payloads[:64])
        holds = found.holds(tolerance)
        self._put("correct", {**dataclasses.asdict(found), "tolerance": tolerance, "holds": holds})
        self.say(f"answers {'agree' if holds else 'DO NOT AGREE'} within {tolerance:g}: {found}")
        return holds

    async def offline(self) -> None:
        seconds, largest = self.options.seconds, self.engine.batcher.sizes.largest_rows
        sizes = [rows for rows in SIZES if 16 <= rows <= largest] or [largest]
        by_rows = {rows: await back_to_back(self.engine, self._payloads, rows, seconds / 5) for rows in sizes}
        best = max(by_rows, key=lambda rows: by_rows[rows])
        rate = max(by_rows[best], await back_to_back(self.engine, self._payloads, best, seconds / 2))
        self._put_rates(offline_rows=best, offline_per_s=rate, offline_by_rows=by_rows)
        self.say(f"offline: {rate:.0f} rows/s in batches of {best} ({best / rate * 1e3:.2f} ms each)")

    async def saturated(self) -> None:
        seconds, sizes = self.options.seconds, self.engine.batcher.sizes
        largest = sizes.largest_rows
        with watched() as gpu:
            full = await saturate(self.engine, self._payloads, in_flight=IN_FLIGHT * largest, seconds=seconds)
        self._put_rates(engine_per_s=full.rows_per_s, mean_rows=full.mean_rows, busy_share=full.busy_share)
        self._put("gpu", gpu)
        self.say(f"engine: {full.rows_per_s:.0f} rows/s in batches of {full.mean_rows:.1f}, busy {full.busy_share:.2f}")
        sizes.largest_rows = 1
        try:
            ones = await saturate(self.engine, self._payloads, in_flight=4, seconds=seconds / 2)
        finally:
            sizes.largest_rows = largest
        self._put_rates(ones_per_s=ones.rows_per_s)
        self.say(f"batches of one: {ones.rows_per_s:.0f} rows/s, a gain of {full.rows_per_s / ones.rows_per_s:.1f}")

    async def goodput(self) -> None:
        single_ns = await single_request_ns(self.engine, self._payloads, 100)
        budget_ns = goodput.BUDGET_IN_SINGLES * single_ns
        self.say(f"a single request takes {single_ns / 1e6:.2f} ms, so the budget is {budget_ns / 1e6:.2f} ms")
        points = await goodput.compare(
            self.engine,
            self._payloads,
            budget_ns=budget_ns,
            most=self._rates.get("engine_per_s", float("inf")),
            seconds=self.options.seconds / 4,
            say=self.say,
        )
        self._put("single_ms", single_ns / 1e6)
        self._put("goodput", goodput.as_plain(points))

    async def bare(self) -> None:
        """Measures torch alone: by batch size at the middle length, then the mix of lengths at the largest size."""
        model, options = self.engine.model, self.options
        lengths, each_s, compiling_s = model.lengths(), options.seconds / 20, 0.0
        middle = lengths[len(lengths) // 2]
        sizes = [rows for rows in SIZES if rows <= self.engine.batcher.sizes.largest_rows]
        times: dict[int, bare.Times] = {}
        for rows in reversed(sizes):
            began = perf_counter()
            compiled = compiling_s < options.compile_s and rows in (sizes[0], sizes[-1])
            found = bare.measure(self._module, self._inputs(rows, middle), middle, each_s, compiled=compiled)
            compiling_s += (perf_counter() - began) * compiled
            times[rows] = found
            self._put("times", [dataclasses.asdict(one) for one in times.values()])
            self.say(f"torch alone, {found}")
            await asyncio.sleep(0)
        rows, by_length = sizes[-1], {middle: times[sizes[-1]]}
        parts = [model.prepare(dict(payload)) for payload in self._payloads]
        mix = [next(length for length in lengths if length >= part.length) for part in parts]
        for length in sorted(set(mix) - {middle}):
            by_length[length] = bare.measure(self._module, self._inputs(rows, length), length, each_s, compiled=False)
        compute_per_s = 1e3 * rows * len(mix) / sum(by_length[length].best_ms for length in mix)
        self._put_rates(compute_per_s=compute_per_s)
        self.say(f"torch alone: {compute_per_s:.0f} rows/s computing, in batches of {rows}")
        if options.device.type == "cuda":
            copies = bare.copies(self._module, self._inputs(rows, middle).cpu(), options.seconds / 5)
            self._put("copies", dataclasses.asdict(copies) | {"hidden_share": copies.hidden_share})
            self._put_rates(bare_per_s=compute_per_s * copies.compute_ms / copies.pipelined_ms)
            self.say(f"torch alone, with copies in flight: {self._rates['bare_per_s']:.0f} rows/s. {copies}")

    def _inputs(self, rows: int, length: int) -> torch.Tensor:
        return inputs_of(self._payloads, rows, length).to(self.options.device)

    def _put(self, section: str, found: Any) -> None:
        self._results.put(self.subject.name, section, found)

    def _put_rates(self, **found: Any) -> None:
        self._rates.update(found)
        self._put("rates", self._rates)
