"""The parts of the arena around the measurement: contestants, requests, and the report."""

import json
import random
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

from benchmarks.arena.__main__ import NAMES, read_arguments
from benchmarks.arena.case import (
    SITUATIONS,
    Case,
    Rest,
    capacity,
    draw_together,
    kept,
    losses,
    missed_goals,
    rests_together,
)
from benchmarks.arena.catalog import HERE, Contestant, contestants, environment, triton_config, write_triton_repository
from benchmarks.arena.measure import Plan, load_of, one_round, parse_pss_mib
from benchmarks.arena.picture import picture
from benchmarks.arena.report import Arena, markdown
from benchmarks.arena.scenarios import FORMS, scenario_of
from benchmarks.arena.servers.work import OBJECTIVE_MS, WORKS
from benchmarks.peers.running import DidNotStart
from loadtest.loading import load
from serving.config import load_settings
from serving.protocol.messages import TensorDescription

CASE = Case(
    contestant="headway", work="mlp", situation="saturation", planned_per_s=1000, throughput_per_s=1000,
    goodput_per_s=900, p50_ms=10, p99_ms=20, cpu_us=500, memory_mib=800, others_cores=0.0, is_generator_limit=False,
)  # fmt: skip
TITLES = {"headway": "Headway", "mosec": "Mosec <Rust>", "litserve": "LitServe"}


def table(**changes: dict[str, float]) -> list[Case]:
    """Returns cases of Headway in every situation, and of other servers with the given differences."""
    cases = [replace(CASE, situation=situation) for situation in SITUATIONS]
    return cases + [replace(case, contestant=name, **figures) for name, figures in changes.items() for case in cases]


def test_every_contestant_can_be_asked_for_by_its_name(tmp_path: Path) -> None:
    assert tuple(each.name for each in contestants(environment(tmp_path), tmp_path)) == NAMES


@pytest.mark.parametrize("words", [["--peers", "headway,apache"], ["--works", "video"], ["--seconds", "0"]])
def test_words_that_make_no_sense_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit):
        read_arguments(words)


def test_headway_is_configured_with_the_same_objective_as_the_others() -> None:
    config = load_settings(HERE / "headway.yaml")
    assert {model.name: model.latency_budget_ms for model in config.models} == OBJECTIVE_MS
    for work in WORKS:
        assert f"default_timeout_microseconds: {OBJECTIVE_MS[work] * 1000}" in triton_config(work)


def test_the_catalog_knows_the_port_of_the_configuration(tmp_path: Path) -> None:
    port = yaml.safe_load((HERE / "headway.yaml").read_text())["server"]["http_port"]
    assert contestants(environment(tmp_path), tmp_path)[0].port == port


def test_tritons_repository_holds_every_work(tmp_path: Path) -> None:
    write_triton_repository(tmp_path)
    assert {path.parent.parent.name for path in tmp_path.rglob("model.py")} == set(WORKS)


@pytest.mark.parametrize("work", WORKS)
def test_all_forms_of_a_work_carry_the_same_body(work: str) -> None:
    kind, width = ("BYTES", 1) if work in ("sentences", "photographs") else ("FP32", 1024)
    inputs = [TensorDescription("x", kind, (-1, width))]
    made = {}
    for form in FORMS:
        scenario = load(scenario_of(work, form))
        made[form] = scenario.tasks()[0].make(scenario(random.Random(1), inputs))
    body = made["raw"]["body"]
    oip = made["oip"]["x"]
    assert (oip[0] if kind == "BYTES" else oip.tobytes()) == body
    (value,) = json.loads(made["json"]["body"])["bodies"]
    if kind == "FP32":
        assert np.array(value, np.float32).tobytes() == body


def test_all_contestants_are_asked_at_the_same_rates(tmp_path: Path) -> None:
    plan = Plan(capacity={"mlp": 1000.0}, works=WORKS, situations=SITUATIONS, seconds=3)
    for situation, rate in (("low", 200), ("overload", 2000), ("bursty", 600), ("saturation", 0), ("disturbed", 500)):
        everybody = contestants(environment(tmp_path), tmp_path)
        loads = [load_of(each, "mlp", situation, plan) for each in everybody]
        assert {load.rate for load in loads} == {rate}
        assert {load.users for load in loads} == {0 if rate else 64}


def test_each_contestant_is_asked_for_twice_what_it_reached_itself(tmp_path: Path) -> None:
    plan = Plan(capacity={"mlp": 1000.0}, works=WORKS, situations=SITUATIONS, seconds=3)
    one = contestants(environment(tmp_path), tmp_path)[0]
    assert load_of(one, "mlp", "double", plan, own_per_s=700.0).rate == 1400
    with pytest.raises(ValueError, match="capacity"):
        load_of(one, "mlp", "double", plan)


def test_what_is_kept_at_twice_its_own_capacity_is_a_share_of_that_and_a_goal() -> None:
    cases = table(mosec={"goodput_per_s": 300})
    assert kept(cases, "mlp", "headway") == 0.9
    assert kept(cases, "mlp", "mosec") == 0.3
    assert kept(cases, "noop", "headway") is None
    assert missed_goals(cases, python=["headway"]) == []
    weak = [replace(case, goodput_per_s=700) for case in cases]
    assert missed_goals(weak, python=["headway"]) == ["mlp, twice its own capacity: 0.70 of that capacity is in time."]


def test_full_load_is_a_part_of_what_a_model_does_alone_and_bounded_where_it_costs_nothing() -> None:
    assert capacity({"mlp": 5000.0, "noop": 9e6}) == {"mlp": 3000.0, "noop": 8000.0}


def test_rounds_are_drawn_together_by_their_medians() -> None:
    rounds = [replace(CASE, goodput_per_s=value) for value in (100, 900, 500)]
    (drawn,) = draw_together(rounds)
    assert (drawn.goodput_per_s, drawn.rounds) == (500, 3)


def test_every_figure_that_is_worse_by_more_than_noise_is_a_loss() -> None:
    said = losses(table(mosec={"cpu_us": 250, "p99_ms": 19.5, "goodput_per_s": 1000}), TITLES)
    assert said == [
        "mlp, saturation, CPU µs per request: Mosec <Rust> 250, Headway 500.",
        "mlp, overload, goodput per s: Mosec <Rust> 1,000, Headway 900.",
        "mlp, bursty, goodput per s: Mosec <Rust> 1,000, Headway 900.",
        "mlp, disturbed, goodput per s: Mosec <Rust> 1,000, Headway 900.",
    ]


def test_a_contestant_that_answered_nothing_is_no_better() -> None:
    nothing = {"throughput_per_s": 0, "goodput_per_s": 0, "p50_ms": 0, "p99_ms": 0, "cpu_us": 0, "memory_mib": 900}
    assert losses(table(mosec=nothing), TITLES) == []


def test_goals_are_about_goodput_throughput_and_the_python_servers_cost() -> None:
    better = {"goodput_per_s": 1000, "throughput_per_s": 1200, "cpu_us": 250}
    assert len(missed_goals(table(litserve=better), python=["headway", "litserve"])) == 5
    assert len(missed_goals(table(mosec=better), python=["headway"])) == 4
    assert missed_goals(table(mosec={"throughput_per_s": 1090}), python=["headway"]) == []


def test_the_report_lists_missing_servers_disturbed_cases_and_a_late_generator() -> None:
    cases = table(mosec={"others_cores": 0.5, "is_generator_limit": True})
    rests = [Rest(contestant="headway", ready_s=seconds, cores=0.1, memory_mib=1500) for seconds in (20, 30, 21)]
    arena = Arena(
        cases=cases, rests=rests_together(rests), titles=TITLES, python=["headway"], capacity={"mlp": 1000},
        missing={"litserve": "did not start"}, seconds=3, machine={"cores": "2"}, versions={"Ray": "2"}, commit="abc",
        command="run", date="today",
    )  # fmt: skip
    text = markdown(arena, "arena.svg")
    assert "| Headway |             21.0 |             10.0 | 1,500 |" in text
    assert "900 (0.90)" in text
    assert "in 5 of 12 cases other processes used up to 0.5 of a core" in text
    assert "marked ¹" in text
    assert "- LitServe: did not start" in text
    assert "Overload: 2000/s, about twice what a server can do" in text


def test_the_picture_is_well_formed_and_has_a_bar_for_each_case() -> None:
    tree = ElementTree.fromstring(picture(table(mosec={}), TITLES))
    assert len(tree.findall("{http://www.w3.org/2000/svg}rect")) == 12


def test_memory_is_the_proportional_share() -> None:
    assert parse_pss_mib("Rss:  9000 kB\nPss:    2048 kB\nPss_Dirty: 7 kB\n") == 2.0


class Ready(BaseHTTPRequestHandler):
    """A server that was left over: ready for every model."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_server_that_was_there_before_is_not_measured_in_place_of_the_contestant(tmp_path: Path) -> None:
    plan = Plan(capacity={"noop": 1000.0}, works=["noop"], situations=["low"], seconds=1.0)
    with HTTPServer(("127.0.0.1", 0), Ready) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        contestant = Contestant(
            name="a", title="A", command=("true",), environment={}, port=server.server_port, form="oip"
        )
        with pytest.raises(DidNotStart, match=f"another server answers on port {server.server_port}"):
            one_round(contestant, plan, tmp_path, lambda line: None)
        server.shutdown()
