"""Tests that the statistics of several replicas are summed, each count and each duration."""

from dataclasses import asdict

from serving.core.statistics import BatchStatistics, Duration, ModelStatistics, total


def replica(first: int, *, last_ms: int, batches: dict[int, int]) -> ModelStatistics:
    """Returns statistics with a different number in each field, counted up from `first`.

    batches: the first number of each batch size, by its rows.
    """
    success, fail, queue, compute_input, compute_infer, compute_output = durations(first + 2, 6)
    return ModelStatistics(
        inference_count=first,
        execution_count=first + 1,
        last_inference_ms=last_ms,
        success=success,
        fail=fail,
        queue=queue,
        compute_input=compute_input,
        compute_infer=compute_infer,
        compute_output=compute_output,
        by_batch_rows={rows: BatchStatistics(*durations(number, 3)) for rows, number in batches.items()},
    )


def durations(first: int, how_many: int) -> list[Duration]:
    return [Duration(count=first + index, ns=1000 * (first + index)) for index in range(how_many)]


def numbers(statistics: ModelStatistics) -> dict[str, int]:
    """Returns all numbers of the statistics by their path."""
    flat: dict[str, int] = {}

    def walk(path: str, value: object) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(f"{path}.{name}", inner)
        else:
            assert isinstance(value, int)
            flat[path] = value

    walk("", asdict(statistics))
    return flat


def test_every_number_is_summed_and_the_last_inference_is_the_latest() -> None:
    one = replica(10, last_ms=500, batches={1: 100, 8: 200})
    other = replica(50, last_ms=400, batches={1: 300, 8: 400})
    expected = {path: number + numbers(other)[path] for path, number in numbers(one).items()}
    assert len(expected) == 3 + 8 * 2 + 2 * 3 * 2
    assert numbers(total([one, other])) == expected | {".last_inference_ms": 500}


def test_batch_sizes_of_only_one_replica_are_included() -> None:
    summed = total([replica(1, last_ms=1, batches={1: 10, 2: 20}), replica(1, last_ms=1, batches={2: 30, 4: 40})])
    inputs = {rows: batch.compute_input.count for rows, batch in summed.by_batch_rows.items()}
    assert inputs == {1: 10, 2: 20 + 30, 4: 40}


def test_summing_changes_nothing_of_what_was_summed() -> None:
    parts = [replica(1, last_ms=1, batches={1: 10}), replica(2, last_ms=2, batches={1: 20})]
    before = [numbers(part) for part in parts]
    summed = total(parts)
    summed.by_batch_rows[1].compute_infer.add(5)
    summed.queue.add(5)
    assert [numbers(part) for part in parts] == before
    assert numbers(total(parts)) == numbers(total(reversed(parts)))


def test_the_statistics_of_no_replica_are_zero() -> None:
    assert total([]) == ModelStatistics()
