"""Tests up to which batch size a model is measured, on a clock that only the model advances."""

import pytest

from models.base import Collected, DeviceLost, Tensors
from models.spec import Limits
from serving.core.latency import LatencyModel
from serving.core.sizes import Sizes
from serving.runtime.driver import HOP_NS, nearer
from serving.runtime.warmup import warm_up
from serving.testing.clock import ManualClock
from serving.testing.models import AsynchronousModel, ScriptedModel, Staged

MS = 1_000_000


class TimedModel(ScriptedModel):
    """Takes `fixed_ms` per batch and `row_ms` per row, and `stall_ms` more for batches with a size in `stalled`."""

    def __init__(self, clock: ManualClock, fixed_ms: float, row_ms: float, *stalled: int, stall_ms: float = 0) -> None:
        super().__init__(limits=Limits(max_batch_rows=64))
        self._clock, self._fixed_ms, self._row_ms, self._stalled, self._stall_ms = (
            clock, fixed_ms, row_ms, stalled, stall_ms,
        )  # fmt: skip

    def forward(self, staged: object) -> Tensors:
        assert isinstance(staged, Staged)
        rows = len(staged.x)
        took_ms = self._fixed_ms + self._row_ms * rows + self._stall_ms * (rows in self._stalled)
        self._clock.advance(int(took_ms * MS))
        return super().forward(staged)


def climbed(clock: ManualClock, model: TimedModel) -> list[int]:
    """Returns the sizes that were measured."""
    said: list[str] = []
    warm_up(model, LatencyModel(), Sizes(largest_rows=64), clock, budget_ns=None, report=said.append)
    return [int(line.split()[0]) for line in said]


def test_the_climb_ends_where_larger_batches_do_not_pay() -> None:
    clock = ManualClock()
    assert climbed(clock, TimedModel(clock, 0, 10)) == [1, 2, 4]


class CrowdedModel(TimedModel):
    """Waits 30 ms for a core in every batch of 2 or 4 rows: the system's clock goes on, `running` does not."""

    def __init__(self, clock: ManualClock, running: ManualClock) -> None:
        super().__init__(running, 5, 0.2)
        self._everyone = clock

    def forward(self, staged: object) -> Tensors:
        assert isinstance(staged, Staged)
        began_ns = self._clock.now_ns()
        outputs = super().forward(staged)
        waited_ns = int(30 * MS) if len(staged.x) in (2, 4) else 0
        self._everyone.advance(self._clock.now_ns() - began_ns + waited_ns)
        return outputs


def test_time_in_which_the_thread_waits_for_a_core_does_not_end_the_climb() -> None:
    clock, running, latency, said = ManualClock(), ManualClock(), LatencyModel(), list[str]()
    model = CrowdedModel(clock, running)
    warm_up(model, latency, Sizes(largest_rows=64), clock, budget_ns=None, report=said.append, running=running)
    assert [int(line.split()[0]) for line in said] == [1, 2, 4, 8, 16, 32, 64]
    assert latency.predict_ns(4, 1) == pytest.approx(5.8 * MS, rel=0.05)


class PaddedModel(TimedModel):
    """Has the padded lengths 16, 32 and 64, of which each takes twice as long as the one before."""

    def lengths(self) -> tuple[int, ...]:
        return (16, 32, 64)

    def sample(self, rows: int, length: int) -> Tensors:
        self._row_ms = self._slowest_ms * length / 64
        return super().sample(rows, length)

    def __init__(self, clock: ManualClock, fixed_ms: float, slowest_ms: float) -> None:
        super().__init__(clock, fixed_ms, 0)
        self._slowest_ms = slowest_ms


def measured_lengths(clock: ManualClock, model: TimedModel) -> dict[int, list[int]]:
    """Returns the measured sizes by length."""
    said: list[str] = []
    sizes = Sizes(largest_rows=64, lengths=model.lengths())
    warm_up(model, LatencyModel(lengths=sizes.lengths), sizes, clock, budget_ns=None, report=said.append)
    found: dict[int, list[int]] = {}
    for line in said:
        rows, _, length = line.split(":")[0].split()
        found.setdefault(int(length), []).append(int(rows))
    return found


def test_no_length_takes_the_time_of_the_longer_ones() -> None:
    clock = ManualClock()
    found = measured_lengths(clock, PaddedModel(clock, 50, 10))
    assert found == {length: [1, 2, 4, 8] for length in (16, 32, 64)}
    assert clock.now_ns() < 3000 * MS


def test_a_length_that_is_cheap_leaves_its_time_to_the_longer_ones() -> None:
    clock = ManualClock()
    found = measured_lengths(clock, PaddedModel(clock, 1, 0.1))
    assert found == {length: [1, 2, 4, 8, 16, 32, 64] for length in (16, 32, 64)}


def test_a_batch_that_takes_longer_than_all_the_time_is_measured_once_for_each_length() -> None:
    clock = ManualClock()
    assert measured_lengths(clock, PaddedModel(clock, 5000, 1)) == {16: [1], 32: [1], 64: [1]}
    assert clock.now_ns() < 31_000 * MS


def test_the_first_run_of_a_model_may_take_long_without_ending_the_climb() -> None:
    clock = ManualClock()
    assert climbed(clock, SlowToBegin(clock, 0.5, 0.01)) == [1, 2, 4, 8, 16, 32, 64]


class SlowToBegin(TimedModel):
    """Takes ten seconds longer for its first batch."""

    def forward(self, staged: object) -> Tensors:
        if not self._clock.now_ns():
            self._clock.advance(10_000 * MS)
        return super().forward(staged)


def test_sizes_that_cost_nothing_to_try_are_climbed_through_a_stall() -> None:
    clock = ManualClock()
    assert climbed(clock, TimedModel(clock, 0.5, 0.01, 4, 8, stall_ms=3)) == [1, 2, 4, 8, 16, 32, 64]


def test_one_stall_raises_the_average_by_little_however_long_it_was() -> None:
    usual_ns = 300_000
    assert nearer(usual_ns, 75 * MS) == nearer(usual_ns, 2 * usual_ns + HOP_NS) < 400_000


def test_the_average_follows_repeated_values() -> None:
    usual_ns = 0
    for _ in range(60):
        usual_ns = nearer(usual_ns, 5 * MS)
    assert 4.9 * MS < usual_ns <= 5 * MS
    for _ in range(60):
        usual_ns = nearer(usual_ns, MS)
    assert usual_ns < 1.1 * MS


def test_measuring_later_sizes_and_lengths_does_not_change_earlier_predictions() -> None:
    """Teaches that batches of all lengths take equally long, which the shortest length alone does not suggest."""
    latency = LatencyModel(lengths=(16, 32, 64, 128))
    for length in latency.lengths:
        for rows in (1, 2, 4, 8, 16, 32, 64):
            for _ in range(3):
                latency.teach(rows, length, MS // 2 + 10_000 * rows)
    assert latency.snapshot().drift == 1.0
    for length in latency.lengths:
        for rows in (1, 8, 64):
            assert latency.predict_ns(rows, length) == MS // 2 + 10_000 * rows


class LimitedModel(TimedModel):
    """Fails for batches of more than `most` or fewer than `fewest` rows."""

    def __init__(self, clock: ManualClock, most: int, fewest: int = 1, error: type[Exception] = RuntimeError) -> None:
        super().__init__(clock, 1, 0)
        self._most, self._fewest, self._error = most, fewest, error

    def forward(self, staged: object) -> Tensors:
        assert isinstance(staged, Staged)
        if not self._fewest <= len(staged.x) <= self._most:
            raise self._error(f"{len(staged.x)} rows are not possible\nmore")
        return super().forward(staged)


@pytest.mark.parametrize("most", [1, 2, 3, 16, 20, 31, 63])
def test_a_model_that_cannot_take_more_rows_is_bounded_there_and_says_so(most: int) -> None:
    clock, said = ManualClock(), list[str]()
    latency, sizes = LatencyModel(), Sizes(largest_rows=64)
    warm_up(LimitedModel(clock, most), latency, sizes, clock, budget_ns=None, report=said.append)
    assert sizes.largest_rows == most
    assert said[-1] == (
        f"WARNING: {most + 1} rows and more fail (RuntimeError: {_failed_first(most)} rows are not possible): batches "
        f"have at most {most} rows. `limits.max_batch_rows: {most}` in the settings says so without trying"
    )
    assert latency.predict_ns(1, 1) == MS


def _failed_first(most: int) -> int:
    return next(rows for rows in (1, 2, 4, 8, 16, 32, 64) if rows > most)


def test_a_model_that_cannot_take_one_row_stops_the_start() -> None:
    clock, sizes = ManualClock(), Sizes(largest_rows=64)
    with pytest.raises(RuntimeError, match="1 rows are not possible"):
        warm_up(LimitedModel(clock, most=8, fewest=8), LatencyModel(), sizes, clock, budget_ns=None)


def test_a_device_that_is_lost_while_sizes_are_tried_is_no_limit() -> None:
    clock, sizes = ManualClock(), Sizes(largest_rows=64)
    with pytest.raises(DeviceLost):
        warm_up(LimitedModel(clock, most=4, error=DeviceLost), LatencyModel(), sizes, clock, budget_ns=None)


def test_launched_batches_are_collected_even_if_a_size_fails() -> None:
    """Checks that no launched batch is left uncollected: it would keep its memory on the device."""
    clock, said = ManualClock(), list[str]()
    model, sizes = FailingLaunches(most=5), Sizes(largest_rows=64)
    warm_up(model, LatencyModel(), sizes, clock, budget_ns=None, report=said.append)
    assert sizes.largest_rows == 5
    assert model.under_way == 0


class FailingLaunches(AsynchronousModel):
    def __init__(self, most: int) -> None:
        super().__init__()
        self._most, self.under_way, self._tried = most, 0, 0

    def launch(self, staged: object) -> object:
        assert isinstance(staged, Staged)
        self._tried += 1
        if len(staged.x) > self._most and self._tried % 2:
            raise RuntimeError("too many rows")
        self.under_way += 1
        return super().launch(staged)

    def collect(self, launched: object) -> Collected:
        self.under_way -= 1
        return super().collect(launched)
