"""Tests the latency model on simulated devices. Batch times are functions in milliseconds; noise is seeded."""

from collections.abc import Callable, Sequence
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serving.core.curve import cell_key
from serving.core.latency import LatencyModel

Law = Callable[[int], float]
LADDER = (1, 2, 4, 8, 16, 32, 64)


def ms(milliseconds: float) -> int:
    return int(milliseconds * 1e6)


def affine(rows: int) -> float:
    return 5.0 + 1.0 * rows


def staircase(rows: int) -> float:
    return 2.0 + 4.0 * -(-rows // 16)


def warmed(law: Law, rng: Random, noise: float = 0.02) -> LatencyModel:
    model = LatencyModel()
    for rows in LADDER:
        for _ in range(4):
            model.observe(rows, 1, ms(law(rows) * rng.lognormvariate(0, noise)))
    return model


def work(model: LatencyModel, law: Law, rng: Random, batches: int, sizes: Sequence[int], noise: float = 0.02) -> float:
    """Runs batches of random sizes and returns the share of them that stayed within their bounds."""
    within = 0
    for _ in range(batches):
        rows = rng.choice(sizes)
        took_ns = ms(law(rows) * rng.lognormvariate(0, noise))
        within += took_ns <= model.bound_ns(rows)
        model.observe(rows, 1, took_ns)
    return within / batches


def test_before_the_first_batch_predictions_are_zero() -> None:
    model = LatencyModel()
    assert model.predict_ns(8) == model.bound_ns(8) == 0
    assert model.best_rows(32) == 32
    assert model.largest_feasible_rows(0, 1, 32) == 32
    assert model.throughput_rows_per_s(4) == 0.0


def test_it_interpolates_between_sizes_and_follows_the_affine_law_beyond_them() -> None:
    model = LatencyModel()
    for rows in (4, 8):
        for _ in range(5):
            model.observe(rows, 1, ms(affine(rows)))
    for rows in (1, 2, 4, 6, 8, 16, 100):
        assert model.predict_ns(rows) == pytest.approx(ms(affine(rows)), rel=0.001)


@pytest.mark.parametrize(
    ("law", "noise"), [(affine, 0.005), (affine, 0.02), (affine, 0.1), (staircase, 0.02), (staircase, 0.1)]
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_99_of_100_batches_stay_within_their_bound(law: Law, noise: float, seed: int) -> None:
    rng = Random(seed)
    model = warmed(law, rng, noise)
    work(model, law, rng, 200, range(1, 65), noise)
    assert 0.985 <= work(model, law, rng, 1500, range(1, 65), noise) <= 0.995


def test_the_bound_learns_noise_that_is_far_from_normal() -> None:
    rng = Random(7)
    model = warmed(affine, rng)
    spiky = lambda rows: affine(rows) * (1.5 if rng.random() < 0.03 else 1.0)  # noqa: E731
    work(model, spiky, rng, 2000, range(1, 33))
    assert work(model, spiky, rng, 3000, range(1, 33)) >= 0.985


@pytest.mark.parametrize("stall_share", [0.0, 0.05, 0.3])
def test_seven_of_eight_batches_keep_the_planned_time(stall_share: float) -> None:
    rng = Random(8)
    model = warmed(affine, rng)
    stalling = lambda rows: affine(rows) + (rng.expovariate(0.1) if rng.random() < stall_share else 0.0)  # noqa: E731
    work(model, stalling, rng, 500, range(1, 33))
    kept = 0
    for _ in range(2000):
        rows = rng.randint(1, 32)
        took_ns = ms(stalling(rows) * rng.lognormvariate(0, 0.02))
        kept += took_ns <= model.plan_ns(rows)
        model.observe(rows, 1, took_ns)
    assert 0.86 <= kept / 2000 <= 0.9


def test_a_stall_that_small_batches_meet_is_not_expected_to_be_tenfold_for_large_ones() -> None:
    rng = Random(9)
    model = warmed(affine, rng)
    for _ in range(400):
        model.observe(2, 1, ms(affine(2) + (10.0 if rng.random() < 0.3 else 0.0)))
    stalled_ns = model.plan_ns(2) - model.predict_ns(2)
    assert stalled_ns > ms(3)
    assert model.plan_ns(64) - model.predict_ns(64) == pytest.approx(stalled_ns, rel=0.1)


def test_with_little_noise_the_bound_is_close_to_the_prediction() -> None:
    rng = Random(3)
    model = warmed(affine, rng)
    work(model, affine, rng, 500, range(1, 17))
    assert 1.03 <= model.bound_ns(8) / model.predict_ns(8) <= 1.12


@pytest.mark.parametrize("shift", [0.5, 2.0, 5.0])
def test_thirty_batches_after_the_device_changes_speed_every_size_is_right_again(shift: float) -> None:
    rng = Random(11)
    model = warmed(affine, rng)
    work(model, affine, rng, 300, range(1, 33))
    shifted = lambda rows: shift * affine(rows)  # noqa: E731
    work(model, shifted, rng, 30, range(1, 33))
    for rows in (1, 4, 8, 16, 32):
        assert model.predict_ns(rows) == pytest.approx(ms(shifted(rows)), rel=0.08)
    assert model.snapshot().margin < 0.5
    assert work(model, shifted, rng, 500, range(1, 33)) >= 0.98


def test_a_shift_seen_at_one_size_only_is_believed_for_all() -> None:
    rng = Random(12)
    model = warmed(affine, rng)
    work(model, lambda rows: 2 * affine(rows), rng, 40, [8])
    assert model.predict_ns(64) == pytest.approx(ms(2 * affine(64)), rel=0.08)


def test_a_slow_start_is_not_held_against_the_sizes_that_did_not_run_after_it() -> None:
    """Runs small batches on a slow device, then only a size never run before at full speed."""
    rng = Random(4)
    model = warmed(affine, rng)
    work(model, lambda rows: 3.5 * affine(rows), rng, 12, (1, 2, 4))
    work(model, affine, rng, 40, (48,))
    for rows in LADDER:
        assert model.predict_ns(rows) < 2.0 * ms(affine(rows)), rows
    assert model.fastest_rows(4, 1, 64) == 4


def test_a_larger_size_than_seems_to_pay_is_tried_again_now_and_then() -> None:
    rng = Random(5)
    model = warmed(affine, rng)
    work(model, lambda rows: 3.0 * affine(rows), rng, 20, (64,))  # slow for a while, then not run any more
    work(model, affine, rng, 200, (32,))
    ran = set()
    for _ in range(400):
        rows = model.best_rows(64)
        ran.add(rows)
        model.observe(rows, 1, ms(affine(rows) * rng.lognormvariate(0, 0.02)))
    assert 64 in ran
    assert model.best_rows(64, efficiency=0.97) == 64


def test_thousands_of_batches_of_one_size_do_not_spoil_the_slope() -> None:
    rng = Random(5)
    model = warmed(affine, rng)
    work(model, affine, rng, 3000, [7])
    for rows in (1, 7, 16, 64, 128):
        assert model.predict_ns(rows) == pytest.approx(ms(affine(rows)), rel=0.07)


def test_steps_in_the_batch_time_are_learned_at_the_sizes_that_run() -> None:
    rng = Random(6)
    model = warmed(staircase, rng)
    work(model, staircase, rng, 1000, [8, 15, 16, 17, 31, 32, 33])
    for rows in (8, 15, 16, 17, 32, 33):
        assert model.predict_ns(rows) == pytest.approx(ms(staircase(rows)), rel=0.05)
    assert model.best_rows(64) in (16, 32, 64)


def test_one_extremely_slow_batch_is_ignored() -> None:
    rng = Random(8)
    model = warmed(affine, rng)
    work(model, affine, rng, 200, range(1, 17))
    before = [(model.predict_ns(rows), model.bound_ns(rows)) for rows in LADDER]
    model.observe(4, 1, ms(900))
    assert [(model.predict_ns(rows), model.bound_ns(rows)) for rows in LADDER] == before
    assert model.snapshot().set_aside == 1


def test_a_second_absurd_batch_in_a_row_widens_the_bound_and_is_then_followed() -> None:
    rng = Random(9)
    model = warmed(affine, rng)
    work(model, affine, rng, 200, range(1, 17))
    margin = model.snapshot().margin
    model.observe(4, 1, ms(60))
    model.observe(4, 1, ms(60))
    assert model.snapshot().margin > 3 * margin
    for _ in range(10):
        model.observe(4, 1, ms(60))
    assert model.predict_ns(4) == pytest.approx(ms(60), rel=0.05)


def test_a_first_run_that_compiles_is_forgotten() -> None:
    model = LatencyModel()
    model.observe(4, 1, ms(2000))
    for _ in range(3):
        model.observe(4, 1, ms(9))
    assert model.predict_ns(4) == pytest.approx(ms(9), rel=0.01)


def test_the_knee_is_the_smallest_size_with_nearly_the_best_throughput() -> None:
    flat_after_8 = lambda rows: 1.0 if rows <= 8 else rows / 8.0  # noqa: E731
    model = warmed(flat_after_8, Random(1), noise=0.0)
    assert model.best_rows(64, 1, 0.95) == 8
    assert model.throughput_rows_per_s(8) == pytest.approx(8000, rel=0.01)
    assert warmed(affine, Random(1), noise=0.0).best_rows(64, 1, 0.95) == 64


def test_where_more_rows_still_pay_the_knee_lies_beyond_what_was_tried() -> None:
    model = LatencyModel()
    for rows in (1, 2, 4):
        model.observe(rows, 1, ms(affine(rows)))
    assert model.best_rows(256) == 128  # 5 + b: 96 % of the throughput at 256
    one_size = LatencyModel()
    one_size.observe(1, 1, ms(6))
    assert one_size.best_rows(32) > 1


def test_a_longer_length_never_costs_less_and_one_never_seen_is_borrowed() -> None:
    model = LatencyModel(lengths=(16, 32, 64))
    model.observe(4, 16, ms(10))
    assert model.predict_ns(4, 64) == pytest.approx(ms(40), rel=0.01)
    model.observe(4, 64, ms(8))
    assert model.predict_ns(4, 16) == model.predict_ns(4, 32) == model.predict_ns(4, 64) == ms(10)
    assert model.predict_ns(4, 20) == model.predict_ns(4, 32)


def test_cells_are_few_and_end_where_device_tiles_do() -> None:
    assert len({cell_key(rows) for rows in range(1, 1025)}) == 112
    assert len({cell_key(rows) for rows in range(1, 33)}) == 32
    assert cell_key(61) == cell_key(63) != cell_key(64) != cell_key(65)
    keys = [cell_key(rows) for rows in range(1, 1025)]
    assert keys == sorted(keys)


OBSERVATIONS = st.lists(
    st.tuples(st.integers(1, 300), st.sampled_from([8, 16, 32]), st.integers(1, 10**10)), min_size=1, max_size=40
)


@settings(max_examples=60)
@given(OBSERVATIONS)
@example([(1, 8, 94906265), (2, 8, 2)])  # rounding made four rows a nanosecond faster than one
@example([(3, 32, 350), (1, 8, 1046858559), (3, 32, 10)])  # kept old times of a longer length
def test_more_rows_or_a_longer_length_never_take_less_time(observations: list[tuple[int, int, int]]) -> None:
    model = LatencyModel(lengths=(8, 16, 32))
    for rows, length, took_ns in observations:
        model.observe(rows, length, took_ns)
    for length in (8, 16, 32):
        times = [model.predict_ns(rows, length) for rows in range(1, 330, 3)]
        assert times == sorted(times)
    for rows in (1, 5, 17, 100):
        times = [model.bound_ns(rows, length) for length in (8, 16, 32)]
        assert times == sorted(times)


@settings(max_examples=60)
@given(OBSERVATIONS, st.integers(0, 2 * 10**10), st.integers(1, 64))
def test_the_largest_feasible_batch_is_feasible_and_the_next_is_not(
    observations: list[tuple[int, int, int]], slack_ns: int, max_rows: int
) -> None:
    model = LatencyModel(lengths=(8, 16, 32))
    for rows, length, took_ns in observations:
        model.observe(rows, length, took_ns)
    rows = model.largest_feasible_rows(slack_ns, 16, max_rows)
    assert 0 <= rows <= max_rows
    assert rows == 0 or model.plan_ns(rows, 16) <= slack_ns
    assert rows == max_rows or model.plan_ns(rows + 1, 16) > slack_ns
