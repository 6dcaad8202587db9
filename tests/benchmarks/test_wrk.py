"""Parsing the output of wrk, and building its command."""

import pytest

from benchmarks.peers.wrk import LoadFailed, command, parse

PRINTED = """Running 4s test @ http://127.0.0.1:1/noop
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     4.22ms  280.60us   6.17ms   75.32%
Requests/sec:   7512.87
summary {"requests":1000,"duration_us":2000000,"p50_us":4274,"p99_us":5038,"max_us":6168,"status":40,"connect":1,\
"read":2,"write":3,"timeout":4}
"""


def test_answers_of_an_error_status_are_no_answers() -> None:
    seen = parse(PRINTED, generator_cpu_s=0.5)
    assert (seen.answered, seen.failed) == (960, 50)
    assert seen.per_second == 480.0
    assert (seen.p50_ms, seen.p99_ms, seen.generator_cpu_s) == (4.274, 5.038, 0.5)


@pytest.mark.parametrize("output", ["", "unable to connect to 127.0.0.1:1 Connection refused", PRINTED + PRINTED])
def test_an_output_without_exactly_one_summary_is_a_failure_that_shows_it(output: str) -> None:
    with pytest.raises(LoadFailed) as failure:
        parse(output)
    assert str(failure.value) == (output.strip()[-2000:] or "wrk printed nothing")


def test_the_command_names_the_script_and_whole_seconds() -> None:
    words = command("http://127.0.0.1:1/x", "oip", 2.4, connections=8)
    assert words[:4] == ["wrk", "-t1", "-c8", "-d2s"]
    assert words[-1] == "http://127.0.0.1:1/x"
    assert words[-2].endswith("load/oip.lua")
