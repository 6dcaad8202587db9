"""Selects the fastest correct variant of a model's computation, at load, on the shapes that are expected.

Each variant is tried on top of those kept so far. It is kept if its outputs equal those of the plain float32 module
within the model's tolerance, and if it is faster by more than noise. A failing variant does not stop the model.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from math import exp, log
from typing import Any, NamedTuple

from torch import nn

from models.base import Bucket, Prepared, Tensors
from models.collate import Pads
from models.pytorch.comparing import difference, shuffled
from models.pytorch.execution import Execution
from models.pytorch.pipeline import PipelinedExecution
from models.pytorch.variants import Compiled, Unsuitable, Variant, variants_for
from models.spec import ModelSpec

logger = logging.getLogger(__name__)

REPEATS = 5
WORTH_IT = 0.98  # of the previous time: a smaller gain is noise, or not worth its memory
CAPTURE_LIMIT_NS = 60_000_000_000

Sample = Callable[[int, int], Prepared]
Variants = Callable[[ModelSpec, nn.Module, Tensors], list[Variant]]


class Tried(NamedTuple):
    """The result of trying a variant.

    speedup: old time / new time. difference: of the outputs, as a share of their largest value.
    """

    way: str
    kept: bool
    speedup: float | None
    difference: float | None
    why: str


class Measured(NamedTuple):
    times_ns: list[int]
    outputs: list[Tensors]


class Tuning:
    """The tuning of one model. `tune` is called only if `has_steps`."""

    def __init__(
        self, spec: ModelSpec, module: nn.Module, execution: Execution, variants: Variants = variants_for
    ) -> None:
        self._spec = spec
        self._variants = variants
        self._module: nn.Module | None = module
        self._execution = execution
        self._graphs = False
        self._graph_count = 0
        self._tried: list[Tried] = []

    def has_steps(self) -> bool:
        spec = self._spec
        return self._captures() or spec.execution == "compiled" or spec.channels_last or spec.precision != "float32"

    def tune(
        self, measured: Sequence[Bucket], sample: Sample, pads: Pads, row_ladder: tuple[int, ...] | None
    ) -> tuple[int, ...] | None:
        """Implements `models.base.TunableModel.tune`. sample: makes up a request of any shape."""
        probes = {bucket: sample(*bucket) for bucket in shapes_that_matter(measured)}
        plain = best = self._measure(probes, pads)
        if self._captures():
            self._graphs = True
            best, self._graphs = self._try("CUDA graphs", probes, pads, plain, best)
        kept: list[Variant] = []
        assert self._module is not None, "the model is closed"
        for variant in self._variants(self._spec, self._module, plain.outputs[0]):
            self._forget()
            before = self._execution.compute
            try:
                self._execution.compute = variant.wrap(before)
                self._execution.refresh()
                best, is_better = self._try(variant.name, probes, pads, plain, best)
            except Exception as error:
                self._note(Tried(variant.name, False, None, None, _short(error)))
                is_better = False
            if is_better:
                kept.append(variant)
            else:
                self._execution.compute = before
                variant.undo()
                self._execution.refresh()
        self._forget()
        ladder = self._capture_all(with_midpoints(measured), sample, pads, row_ladder) if self._graphs else None
        for variant in kept:
            if isinstance(variant, Compiled):
                for bucket in measured:
                    self._run(sample(*bucket), bucket, pads)
                variant.freeze()
        return ladder

    def facts(self) -> dict[str, Any]:
        variants = [tried.way for tried in self._tried if tried.kept]
        return {
            "execution": " + ".join(variants) or "plain",
            "graphs": self._graph_count,
            "tried": [tried._asdict() for tried in self._tried],
        }

    def close(self) -> None:
        self._module = None

    def _try(
        self, name: str, probes: Mapping[Bucket, Prepared], pads: Pads, plain: Measured, best: Measured
    ) -> tuple[Measured, bool]:
        """Measures the new variant. Returns the best measurement, and whether it is that of the new variant."""
        try:
            new = self._measure(probes, pads)
        except Exception as error:
            self._note(Tried(name, False, None, None, _short(error)))
            return best, False
        off = max(difference(*pair) for pair in zip(plain.outputs, new.outputs, strict=True))
        ratios = [log(after / before) for after, before in zip(new.times_ns, best.times_ns, strict=True)]
        share = exp(sum(ratios) / len(ratios))
        why = ""
        if off > self._spec.tolerance:
            why = f"outputs are off by {off:.2g} of their largest value; the tolerance is {self._spec.tolerance:g}"
        elif share > WORTH_IT:
            why = "not faster"
        self._note(Tried(name, not why, round(1 / share, 3), off, why))
        return (best, False) if why else (new, True)

    def _measure(self, probes: Mapping[Bucket, Prepared], pads: Pads) -> Measured:
        times_ns, outputs = [], []
        for bucket, part in probes.items():
            if self._graphs:
                self._capture(part, bucket, pads)
            self._run(part, bucket, pads)
            # Other values than in the first run, to detect a graph or a compiled module that has stored those.
            outputs.append(self._run(shuffled(part), bucket, pads)[0])
            times_ns.append(min(self._run(part, bucket, pads)[1] for _ in range(REPEATS)))
        return Measured(times_ns, outputs)

    def _run(self, part: Prepared, bucket: Bucket, pads: Pads) -> tuple[Tensors, int]:
        """Computes one batch. Returns outputs and time in ns, by the device's clock if it has one."""
        staged = self._execution.stage([part], bucket, pads)
        began_ns = time.perf_counter_ns()
        collected = self._execution.collect(self._execution.launch(staged))
        return collected.outputs, max(1, collected.compute_ns or time.perf_counter_ns() - began_ns)

    # -- graphs -----------------------------------------------------------------------------------------------

    def _captures(self) -> bool:
        return self._spec.execution != "eager" and isinstance(self._execution, PipelinedExecution)

    def _capture(self, part: Prepared, bucket: Bucket, pads: Pads) -> None:
        assert isinstance(self._execution, PipelinedExecution)
        self._execution.capture(part, bucket, pads)

    def _forget(self, keep: frozenset[Bucket] = frozenset()) -> None:
        if isinstance(self._execution, PipelinedExecution):
            self._execution.forget(keep)

    def _capture_all(
        self, buckets: Sequence[Bucket], sample: Sample, pads: Pads, row_ladder: tuple[int, ...] | None
    ) -> tuple[int, ...] | None:
        """Captures a graph for each bucket, the largest first, so that the others fit into its memory. Returns the row
        counts worth padding to, None if there are none."""
        began_ns = time.perf_counter_ns()
        times: dict[Bucket, int] = {}
        for bucket in sorted(buckets, key=lambda bucket: (bucket.rows * bucket.length, bucket), reverse=True):
            if row_ladder is not None and bucket.rows not in row_ladder:
                continue
            if time.perf_counter_ns() - began_ns > CAPTURE_LIMIT_NS:
                logger.warning(
                    "model %s: capturing graphs took too long; %s and smaller have none", self._spec.name, bucket
                )
                break
            try:
                part = sample(*bucket)
                self._capture(part, bucket, pads)
                times[bucket] = min(self._run(part, bucket, pads)[1] for _ in range(REPEATS))
            except Exception as error:
                logger.warning("model %s: no graph for %s: %s", self._spec.name, bucket, _short(error))
        ladder = row_ladder or useful_ladder(times) or None
        if ladder is None:
            return None
        kept = frozenset(bucket for bucket in times if bucket.rows in ladder)
        self._forget(kept)
        self._graph_count = len(kept)
        logger.info("model %s: %d graphs; batches are padded to %s rows", self._spec.name, len(kept), ladder)
        return ladder

    def _note(self, tried: Tried) -> None:
        self._tried.append(tried)
        if tried.speedup is None:
            logger.warning("model %s: %s: %s. Serving without", self._spec.name, tried.way, tried.why)
            return
        level = logging.WARNING if tried.difference is None or tried.difference > self._spec.tolerance else logging.INFO
        verdict = "kept" if tried.kept else f"not kept: {tried.why}"
        logger.log(level, "model %s: %s: %.2f times as fast: %s", self._spec.name, tried.way, tried.speedup, verdict)


def shapes_that_matter(measured: Sequence[Bucket]) -> list[Bucket]:
    """Returns the buckets with the fewest and the most rows of the shortest and the longest length; all others lie
    between them."""
    lengths = sorted({bucket.length for bucket in measured})
    chosen: list[Bucket] = []
    for length in dict.fromkeys((lengths[0], lengths[-1])):
        rows = [bucket.rows for bucket in measured if bucket.length == length]
        chosen += [Bucket(count, length) for count in dict.fromkeys((min(rows), max(rows)))]
    return chosen


def with_midpoints(measured: Sequence[Bucket]) -> list[Bucket]:
    """Returns buckets of 1, 2, 3, 4, 6, 8, 12 ... up to the most rows of each length: the padding waste is at most a
    third."""
    most: dict[int, int] = {}
    for rows, length in measured:
        most[length] = max(rows, most.get(length, 0))
    return [
        Bucket(rows, length)
        for length, limit in most.items()
        for rows in sorted({limit, *(step << shift for shift in range(limit.bit_length()) for step in (1, 3))})
        if rows <= limit
    ]


def useful_ladder(times: Mapping[Bucket, int]) -> tuple[int, ...]:
    """Returns the row counts worth padding to: those that save 2 % against the next larger one at some length."""
    counts = sorted({bucket.rows for bucket in times}, reverse=True)
    kept = counts[:1]
    for rows in counts[1:]:
        pairs = [
            (took, times.get(Bucket(kept[-1], length))) for (count, length), took in times.items() if count == rows
        ]
        if any(larger is None or took < WORTH_IT * larger for took, larger in pairs):
            kept.append(rows)
    return tuple(reversed(kept))


def _short(error: Exception) -> str:
    first_line = (str(error) or type(error).__name__).splitlines()[0]
    return first_line if isinstance(error, Unsuitable) else f"{type(error).__name__}: {first_line}"
