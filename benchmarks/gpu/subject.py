"""Everything that is measured of one model, section by section, the most wanted first."""

import dataclasses
import gc
from collections.abc import Callable
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
from models.registry import find_factory, load_model
from serving.runtime.engine import Engine

REQUESTS = 256  # different ones
IN_FLIGHT = 6  # batches' worth


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """seconds: for each figure of the engine; the others take a fraction. sections: which to measure, empty for all."""

    seconds: float
    compiled: bool
    device: torch.device
    sections: frozenset[str]

    def wants(self, section: str) -> bool:
        return not self.sections or section in self.sections


async def measure(subject: Subject, options: Options, results: Results) -> None:
    """Prints and writes each section as it is finished."""
    name, seconds, device = subject.name, options.seconds, options.device
    random = np.random.default_rng(1)
    payloads = [subject.request(random) for _ in range(REQUESTS)]
    rates: dict[str, Any] = {}
    lines: list[str] = []

    def say(text: str) -> None:
        print(f"  {text}", flush=True)

    print(f"\n{name}: {subject.about}", flush=True)
    began = perf_counter()
    async with Engine([load_model(subject.spec)], report=lines.append) as engine:
        gc.collect()
        gc.freeze()
        facts = _facts(engine)
        results.put(name, "load", {"seconds": perf_counter() - began, "said": lines, "facts": facts})
        say(f"loaded and measured in {perf_counter() - began:.1f} s, at most {engine.batcher.sizes.largest_rows} rows")

        def put_rates(**found: Any) -> None:
            rates.update(found)
            results.put(name, "rates", rates)

        largest = engine.batcher.sizes.largest_rows
        module = find_factory(subject.spec.factory)(**subject.spec.options).to(device).eval()  # type: ignore[attr-defined]
        found = await differences(engine, module, device, payloads[:64])
        holds = found.holds(subject.tolerance)
        results.put(name, "correct", {**dataclasses.asdict(found), "tolerance": subject.tolerance, "holds": holds})
        say(f"answers {'hold' if holds else 'DO NOT HOLD'} within {subject.tolerance:g}: {found}")

        if options.wants("offline"):
            sizes = [rows for rows in (16, 32, 64, 128, 256) if rows <= largest] or [largest]
            offline = {rows: await back_to_back(engine, payloads, rows, seconds / 5) for rows in sizes}
            best = max(offline, key=lambda rows: offline[rows])
            fastest = await back_to_back(engine, payloads, best, seconds / 2)
            put_rates(offline_rows=best, offline_per_s=fastest, offline_by_rows=offline)
            say(f"offline: {fastest:.0f} rows/s in batches of {best} ({best / fastest * 1e3:.2f} ms each)")
        if options.wants("engine"):
            with watched() as gpu:
                full = await saturate(engine, payloads, in_flight=IN_FLIGHT * largest, seconds=seconds)
            put_rates(engine_per_s=full.rows_per_s, mean_rows=full.mean_rows, busy_share=full.busy_share)
            results.put(name, "gpu", gpu)
            say(f"engine: {full.rows_per_s:.0f} rows/s in batches of {full.mean_rows:.1f}, busy {full.busy_share:.2f}")
            engine.batcher.sizes.largest_rows = 1
            ones = await saturate(engine, payloads, in_flight=4, seconds=seconds / 2)
            engine.batcher.sizes.largest_rows = largest
            put_rates(ones_per_s=ones.rows_per_s)
            say(f"batches of one: {ones.rows_per_s:.0f} rows/s, a gain of {full.rows_per_s / ones.rows_per_s:.1f}")
        if options.wants("goodput"):
            single_ns = await single_request_ns(engine, payloads, 100)
            budget_ns = goodput.BUDGET_IN_SINGLES * single_ns
            say(f"a lone request takes {single_ns / 1e6:.2f} ms, so the budget is {budget_ns / 1e6:.2f} ms")
            most = rates.get("engine_per_s", float("inf"))
            points = await goodput.compare(
                engine, payloads, budget_ns=budget_ns, most=most, seconds=seconds / 4, say=say
            )
            results.put(name, "goodput", goodput.as_plain(points))
        if options.wants("bare"):
            await _bare(subject, engine, module, payloads, options, put_rates, say, results)
    gc.unfreeze()
    del module, engine
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


async def _bare(
    subject: Subject,
    engine: Engine,
    module: torch.nn.Module,
    payloads: list[dict[str, np.ndarray]],
    options: Options,
    put_rates: Callable[..., None],
    say: Callable[[str], None],
    results: Results,
) -> None:
    """Torch alone: times per batch size at the middle length, and the mix of lengths at the largest size."""
    lengths = engine.model.lengths()
    each_s = options.seconds / 20
    largest = engine.batcher.sizes.largest_rows
    middle = lengths[len(lengths) // 2]
    sizes = [rows for rows in (1, 2, 4, 8, 16, 32, 64, 128, 256) if rows <= largest]
    times = []
    for rows in sizes:
        inputs = inputs_of(payloads, rows, middle).to(options.device)
        found = bare.measure(module, inputs, middle, each_s, compiled=options.compiled and rows in (1, sizes[-1]))
        times.append(found)
        results.put(subject.name, "times", [dataclasses.asdict(one) for one in times])
        say(
            f"torch alone, {rows:3d} x {middle}: eager {found.eager_ms:.3f} ms"
            + (f", graphed {found.graphed_ms:.3f} ms (off by {found.difference:.1e})" if found.graphed_ms else "")
            + (f", compiled {found.compiled_ms:.3f} ms" if found.compiled_ms else "")
        )
    by_length = {middle: times[-1]}
    rows = sizes[-1]
    mix = [next(length for length in lengths if length >= part.length) for part in map(engine.model.prepare, payloads)]
    for length in sorted(set(mix) - {middle}):
        inputs = inputs_of(payloads, rows, length).to(options.device)
        by_length[length] = bare.measure(module, inputs, length, each_s, compiled=False)
    row_ms = sum(by_length[length].best_ms / rows for length in mix) / len(mix)
    compute_per_s = 1e3 / row_ms
    put_rates(compute_per_s=compute_per_s)
    if options.device.type == "cpu":
        say(f"torch alone: {compute_per_s:.0f} rows/s in batches of {rows}")
        return
    copies = bare.copies(module, inputs_of(payloads, rows, middle), options.seconds / 5)
    results.put(subject.name, "copies", dataclasses.asdict(copies) | {"hidden_share": copies.hidden_share})
    bare_per_s = compute_per_s * copies.compute_ms / copies.pipelined_ms
    put_rates(bare_per_s=bare_per_s)
    say(
        f"torch alone: {compute_per_s:.0f} rows/s computing, {bare_per_s:.0f} with copies under way beside it "
        f"(in {copies.in_ms:.2f} ms, out {copies.out_ms:.2f} ms, {copies.hidden_share:.0%} hidden)"
    )


def _facts(engine: Engine) -> Any:
    facts = getattr(engine.model, "facts", None)
    return facts() if facts else None
