"""Measures a model before it accepts requests, with growing batch sizes as long as larger batches pay."""

import asyncio
from collections.abc import Callable, Iterator
from math import ceil
from typing import cast

from models.base import Bucket, DeviceLost, Model, OutOfDeviceMemory, PipelinedModel, TunableModel
from serving.core.clock import Clock
from serving.core.latency import LatencyModel
from serving.core.sizes import Sizes
from serving.runtime.lane import AnyLane

REPEATS = 3
ENOUGH_NS = 50_000_000  # of counted runs of one size: the noise of a long batch is small beside its time
WORTH_CLIMBING = 1.02  # factor by which a size must raise the best throughput; two in a row that do not end the climb
CHEAP_NS = 10_000_000  # batches that take less do not end the climb: a mere stall would limit the batch size for good
TIME_LIMIT_NS = 20_000_000_000
# The counted runs of all lengths together, unless the model is tuned for the sizes that are measured. What is not
# measured is interpolated until it is served.
COUNTED_NS = 1_000_000_000


def ladder(largest_rows: int) -> Iterator[int]:
    """Yields 1, 2, 4, ... below `largest_rows`, then `largest_rows` itself."""
    rows = 1
    while rows < largest_rows:
        yield rows
        rows *= 2
    yield largest_rows


def expected_ns(took_ns: int) -> int:
    """Returns the time of all counted runs of a size of which one takes `took_ns`."""
    return took_ns * min(REPEATS, ceil(ENOUGH_NS / took_ns))


def warm_up(
    model: Model,
    latency: LatencyModel,
    sizes: Sizes,
    clock: Clock,
    *,
    budget_ns: int | None,
    report: Callable[[str], None] = lambda text: None,
    running: Clock | None = None,
) -> None:
    """Measures every padded length, longest last; teaches `latency` the times and sets the limits in `sizes`.

    A tunable model (one with several variants) is first measured untuned, then tunes itself for the sizes that paid,
    and all sizes that it captured are measured again. Runs in the calling thread. Raises DeviceLost, and the model's
    error if not even one row can be computed for another reason than memory.

    report: called with a line of text at each step. running: the clock for the times of a model on the CPU, see
        `Climb`; None: the same clock.
    """
    if not (isinstance(model, TunableModel) and model.tunable):
        climb = Climb(model, clock, budget_ns, report, running=running, counted_ns=COUNTED_NS)
    else:
        climb = Climb(model, clock, budget_ns, report, running=running)
        measured = climb.run(sizes)
        report(f"trying faster variants for {len(measured)} shapes ...")
        sizes.row_ladder = model.tune(list(measured), sizes.row_ladder)
        report(f"variant chosen: {model.facts()['execution']}")
    for (rows, length), times_ns in climb.run(sizes).items():
        for took_ns in times_ns:
            latency.teach(rows, length, took_ns)


class Climb:
    """Measures growing batch sizes (a ladder) of one model.

    The climb ends where throughput stops growing (unless batches take less than `CHEAP_NS` or the sizes are given),
    where a batch takes longer than the latency budget, fails or runs out of device memory, or after `TIME_LIMIT_NS`.

    running: the clock by which a model on the CPU is measured: one that stands while its thread waits for a core. Other
        processes start at the same time, and a size that was disturbed would end the climb.
    counted_ns: the most time of counted runs. Each length gets an equal share of what those before it left, and at
        least one size of it is measured.
    """

    def __init__(
        self,
        model: Model,
        clock: Clock,
        budget_ns: int | None,
        report: Callable[[str], None],
        *,
        running: Clock | None = None,
        counted_ns: int = TIME_LIMIT_NS,
    ) -> None:
        self._model = model
        self._clock = clock
        # A host that waits for a core does not keep a device from computing.
        self._measuring = clock if running is None or model.asynchronous else running
        self._budget_ns = budget_ns
        self._report = report
        self._counted_ns = counted_ns

    def run(self, sizes: Sizes) -> dict[Bucket, list[int]]:
        """Returns the times in ns of up to `REPEATS` runs per shape. Lowers `sizes.largest_rows` to what fits into the
        device's memory and what the model can compute."""
        measured: dict[Bucket, list[int]] = {}
        began_ns = self._clock.now_ns()
        left_ns, lengths = self._counted_ns, self._model.lengths()
        for number, length in enumerate(lengths):
            share_ns = left_ns // (len(lengths) - number)
            left_ns -= share_ns
            best = disappointments = 0.0
            works = 0  # the most rows of this length that could be computed so far
            for rows in sizes.row_ladder or ladder(sizes.largest_rows):
                if rows > sizes.largest_rows:
                    break
                try:
                    times_ns = self._measure(rows, length)
                except OutOfDeviceMemory:
                    sizes.largest_rows = max(1, rows // 2)
                    self._report(f"{rows} x {length}: out of memory, going on with at most {sizes.largest_rows} rows")
                    break
                except DeviceLost:
                    raise
                except Exception as error:
                    if not works:
                        raise
                    sizes.largest_rows = self._most_rows(works, rows, length)
                    self._report(_bounded(sizes.largest_rows, length, error))
                    break
                works = rows
                measured[Bucket(rows, length)] = times_ns
                took_ns = min(times_ns)
                share_ns -= sum(times_ns)
                throughput = rows / took_ns
                self._report(f"{rows} x {length}: {took_ns / 1e6:.2f} ms, {throughput * 1e9:.0f} rows/s")
                disappointments = disappointments + 1 if throughput < best * WORTH_CLIMBING else 0
                best = max(best, throughput)
                too_slow = self._budget_ns is not None and took_ns > self._budget_ns
                pays = disappointments < 2 or took_ns < CHEAP_NS or sizes.row_ladder is not None
                is_late = self._clock.now_ns() - began_ns > TIME_LIMIT_NS
                if not pays or too_slow or is_late or expected_ns(2 * took_ns) > share_ns:
                    break
            left_ns += share_ns
        return measured

    def _most_rows(self, works: int, fails: int, length: int) -> int:
        """Bisects for the most rows that can be computed, between a number that works and one that fails."""
        while fails - works > 1:
            middle = (works + fails) // 2
            try:
                self._measure(middle, length)
                works = middle
            except DeviceLost:
                raise
            except Exception:
                fails = middle
        return works

    def _measure(self, rows: int, length: int) -> list[int]:
        """Returns the times in ns of runs back to back, after one that is not counted (it may allocate and compile):
        `REPEATS`, or fewer that took `ENOUGH_NS` together."""
        model, bucket = self._model, Bucket(rows, length)
        parts = [model.sample(1, length) for _ in range(rows)]
        times_ns: list[int] = []
        ahead = cast(PipelinedModel, model).launch(model.collate(parts, bucket)) if model.asynchronous else None
        began_ns = self._measuring.now_ns()
        try:
            for attempt in range(REPEATS + 1):
                staged = model.collate(parts, bucket)
                if model.asynchronous:
                    behind = cast(PipelinedModel, model).launch(staged)
                    first, ahead = ahead, behind
                    cast(PipelinedModel, model).collect(first)
                else:
                    began_ns = self._measuring.now_ns()
                    model.forward(staged)
                now_ns = self._measuring.now_ns()
                if attempt:
                    times_ns.append(max(1, now_ns - began_ns))
                began_ns = now_ns
                if sum(times_ns) >= ENOUGH_NS:
                    break
        finally:
            if model.asynchronous:  # after a failure too: a launched batch holds memory until it is collected
                cast(PipelinedModel, model).collect(ahead)
        return times_ns


def _bounded(rows: int, length: int, error: Exception) -> str:
    shape = f"{rows + 1} rows" if length == 1 else f"{rows + 1} rows of length {length}"
    cause = (str(error) or type(error).__name__).splitlines()[0]
    return (
        f"WARNING: {shape} and more fail ({type(error).__name__}: {cause}): batches have at most {rows} rows. "
        f"`limits.max_batch_rows: {rows}` in the settings says so without trying"
    )


async def warm_up_in_lane(
    lane: AnyLane,
    latency: LatencyModel,
    sizes: Sizes,
    clock: Clock,
    *,
    budget_ns: int | None,
    report: Callable[[str], None],
    running: Clock | None = None,
) -> None:
    """Runs `warm_up` in the lane's computing thread, since what it allocates and compiles belongs to that thread."""
    loop = asyncio.get_running_loop()
    warmed: asyncio.Future[None] = loop.create_future()

    def work() -> None:
        try:
            warm_up(lane.model, latency, sizes, clock, budget_ns=budget_ns, report=report, running=running)
        except Exception as error:
            loop.call_soon_threadsafe(warmed.set_exception, error)
        else:
            loop.call_soon_threadsafe(warmed.set_result, None)

    lane.call(work)
    await warmed
