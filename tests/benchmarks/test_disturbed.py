"""The pure parts of `benchmarks.disturbed`: what clients got, and its page."""

import pytest

from benchmarks.disturbed.outcome import found, in_time_per_s, table
from benchmarks.disturbed.page import PAGE, with_part
from benchmarks.disturbed.trouble import left
from loadtest.shot import Shot

WITHIN_MS = 50.0


def shots(lost: range, *, total_ms: int = 8000, every_ms: int = 10) -> list[Shot]:
    """Returns a request every 10 ms, answered after 20 ms, but after 100 ms if it was planned in `lost`."""
    return [
        Shot(planned_ns=at * 10**6, done_ns=(at + (100 if at in lost else 20)) * 10**6, status=200)
        for at in range(0, total_ms, every_ms)
    ]


def test_answers_in_time_are_counted_by_the_instant_for_which_they_were_planned() -> None:
    assert in_time_per_s(shots(range(1000, 2000)), WITHIN_MS, 0.5, 1.5) == 50
    assert in_time_per_s(shots(range(1000, 2000)), WITHIN_MS, 2.0, 3.0) == 100


def test_a_run_is_judged_by_what_the_cpu_that_was_left_could_answer() -> None:
    row = found(
        "stalls", shots(range(2000, 4800)), within_ms=WITHIN_MS, rate=100.0, best_per_s=60.0, left=0.5,
        phase=(2.0, 4.0), total_s=8.0,
    )  # fmt: skip
    assert row.before_per_s == 100  # better than the best rate of the closed loop, so this counts
    assert row.possible_per_s == 50
    assert row.during_per_s == 0
    assert row.recovered_s == 1.0
    assert "| stalls " in table([row])
    assert table([row]).endswith(" 1 s |")


def test_a_server_that_does_not_come_back_is_said_not_to() -> None:
    row = found(
        "stalls", shots(range(2000, 8000)), within_ms=WITHIN_MS, rate=100.0, best_per_s=100.0, left=1.0,
        phase=(2.0, 4.0), total_s=8.0,
    )  # fmt: skip
    assert row.recovered_s is None
    assert table([row]).rstrip().endswith("not |")


def test_each_command_writes_its_own_part_of_the_page() -> None:
    page = PAGE.read_text()
    written = with_part(page, "measured", "new")
    assert "<!-- measured -->\nnew\n<!-- /measured -->" in written
    assert with_part(written, "measured", "new") == written
    assert written.split("## Measured")[0] == page.split("## Measured")[0]
    with pytest.raises(ValueError, match="other"):
        with_part(page, "other", "")


def test_every_disturbance_leaves_a_part_of_the_cpu() -> None:
    assert all(0 < share < 1 for share in left(2).values())
