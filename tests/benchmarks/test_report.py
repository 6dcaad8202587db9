"""Summaries over rounds, ratios, and the list of losses."""

import json
from typing import Any

from benchmarks.peers.report import Run, as_json, disturbances, losses, markdown, ratio
from benchmarks.peers.sample import Sample, best_offline, draw_together

TITLES = {"headway": "Headway", "headway-one-by-one": "Headway, batches of one", "fast": "Fast", "slow": "Slow"}


def sample(peer: str, work: str = "noop", **changes: Any) -> Sample:
    told: dict[str, Any] = {
        "answered": 1000, "failed": 0, "seconds": 1.0, "p50_ms": 2.0, "p99_ms": 4.0, "cpu_s": {"server": 0.1},
        "generator_cpu_s": 0.2, "others_cpu_s": 0.0, "right": None,
    }  # fmt: skip
    return Sample(peer=peer, work=work, **{**told, **changes})


def run(*samples: Sample, **changes: Any) -> Run:
    told: dict[str, Any] = {
        "titles": TITLES, "offline": {}, "connections": 32, "missing": {}, "machine": {"cores": "2"},
        "versions": {"Ray": "1"}, "commit": "abc", "command": "python -m benchmarks.peers", "date": "2026-01-02",
    }  # fmt: skip
    return Run(rows=draw_together(samples), **{**told, **changes})


def test_one_disturbed_round_moves_no_median() -> None:
    rounds = [sample("fast", cpu_s={"server": cpu_s}, failed=1) for cpu_s in (0.1, 9.0, 0.12)]
    (row,) = draw_together(rounds)
    assert (row.cpu_us, row.cpu_us_low, row.cpu_us_high) == (120.0, 100.0, 9000.0)
    assert (row.rounds, row.failed) == (3, 3)


def test_processes_are_summed_and_listed_with_the_dearest_first() -> None:
    (row,) = draw_together([sample("fast", cpu_s={"haproxy": 0.05, "replica": 0.1})])
    assert row.cpu_us == 150.0
    assert list(row.cpu_us_by_process.items()) == [("replica", 100.0), ("haproxy", 50.0)]
    assert row.haproxy_cores == 0.05


def test_one_wrong_answer_in_any_round_is_shown() -> None:
    (row,) = draw_together([sample("fast", "mlp", right=True), sample("fast", "mlp", right=False)])
    assert row.right is False
    assert "Fast (wrong answer!)" in markdown(run(sample("fast", "mlp", right=False)))


def test_the_best_offline_batch_is_that_of_the_medians() -> None:
    rounds = [{1: 10.0, 2: 30.0}, {1: 12.0, 2: 5.0}, {1: 11.0, 2: 25.0}]
    assert best_offline(rounds) == ({1: 11.0, 2: 25.0}, 2)


def test_a_ratio_is_the_peers_number_over_headways_and_empty_without_headway() -> None:
    assert ratio(150.0, 100.0) == "1.50×"
    assert ratio(150.0, None) == ""


def test_the_table_names_every_server_with_its_ratios() -> None:
    text = markdown(run(sample("headway"), sample("slow", cpu_s={"server": 0.4}, answered=500, failed=7)))
    line = next(line for line in text.splitlines() if line.startswith("| Slow"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:8] == ["Slow", "800 (800–800)", "8.00×", "500", "0.50×", "2.0", "4.0", "7"]


def test_every_line_of_a_table_has_the_same_width() -> None:
    lines = [line for line in markdown(run(sample("headway"), sample("slow"))).splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1


def test_headway_loses_where_a_peer_is_better_by_more_than_noise_and_nowhere_else() -> None:
    said = losses(
        run(
            sample("headway"),
            sample("fast", cpu_s={"server": 0.05}, answered=1040, p99_ms=3.9),
            sample("slow", cpu_s={"server": 0.3}, answered=100, p99_ms=40.0),
        )
    )
    assert said == ["noop, CPU per request: Fast needs 0.48× Headway's."]


def test_no_loss_and_no_headway_are_different_sentences() -> None:
    assert losses(run(sample("headway"))) == ["Nowhere in this run by more than 5 %."]
    assert losses(run(sample("fast"))) == ["Headway itself was not measured in this run."]


def test_a_run_that_others_disturbed_says_so() -> None:
    assert disturbances(run(sample("headway"), sample("slow", others_cpu_s=0.1))) == ""
    assert "for 1 of 2 rows" in disturbances(run(sample("headway"), sample("slow", others_cpu_s=0.9)))
    assert "**Disturbed:**" in markdown(run(sample("headway", others_cpu_s=0.9)))


def test_throughput_is_held_against_a_batch_the_connections_can_fill() -> None:
    offline = {1: 100.0, 32: 2000.0, 64: 9000.0}
    told = run(
        sample("headway", "mlp", answered=1500), sample("headway-one-by-one", "mlp", answered=100), offline=offline
    )
    assert told.reachable == (32, 2000.0)
    text = markdown(told)
    assert "Headway serves 75% of it" in text
    assert "Batching gains 15.0× over the same server with batches of one." in text


def test_a_peer_that_did_not_take_part_is_named_with_the_reason() -> None:
    assert "- Slow: left out in round 1: ended with code 1" in markdown(
        run(sample("headway"), missing={"slow": "left out in round 1: ended with code 1"})
    )


def test_the_json_form_can_be_written_and_carries_the_ratios() -> None:
    document = json.loads(json.dumps(as_json(run(sample("headway"), sample("slow", cpu_s={"server": 0.2})))))
    assert [row["cpu_ratio"] for row in document["rows"]] == [1.0, 2.0]
    assert document["losses"] == ["Nowhere in this run by more than 5 %."]
