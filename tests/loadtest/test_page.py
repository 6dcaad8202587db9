"""Rendering results as one self-contained HTML page."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from loadtest.__main__ import main
from loadtest.page import middle_run, page
from loadtest.result import write_result
from loadtest.server_watch import ServerSample
from loadtest.sweep import sweep, write_sweep
from tests.loadtest.results import LOAD, refused, result, run, shot, steady
from tests.loadtest.test_sweep import server

VOID = {"meta", "circle", "path", "rect"}


class Balanced(HTMLParser):
    """A parser that fails on unbalanced tags."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID or tag in ("circle", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None: ...

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(text: str) -> str:
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    return text


def watched(*more: object) -> str:
    samples = [
        ServerSample(at_s=0.0),
        ServerSample(at_s=1.0, rows=80, batches=10, queue_ns=2_000_000_000, by_batch_rows={8: 10}),
    ]
    shots = [*(shot(at, 20, tenant="shop") for at in range(0, 2000, 10)), refused(1500, "<script>")]
    return checked(page("a test", [result(run(shots, server=samples))]))


def test_requests_dropped_by_a_server_with_metrics_are_shown_by_reason() -> None:
    samples = [
        ServerSample(at_s=0.0, in_buckets=True),
        ServerSample(at_s=1.0, in_buckets=True, by_batch_rows={8: 10}, dropped={"rejected: queue full": 31}),
    ]
    text = checked(page("a test", [result(run([shot(0, 20)], server=samples))]))
    assert "<b>31</b>" in text
    assert "rejected: queue full" in text
    assert "≤ 8" in text
    assert "Dropped by the server" not in watched()


def test_the_page_needs_nothing_from_anywhere() -> None:
    text = watched()
    assert not re.findall(r"<(?:script|link|img|iframe)|url\(|@import|src=", text)
    # The only address in the page is that of the server, as text.
    assert set(re.findall(r"https?://[^\s<\"']+", text)) == {LOAD.url}


def test_the_page_shows_what_was_lost_and_what_the_server_said() -> None:
    text = watched()
    assert "the queue is full" in text
    assert "requests waiting" in text
    assert "8: 80" in text  # rows in batches of eight
    assert "200 of them in time within 50 ms" in text


def test_names_from_outside_are_text() -> None:
    assert "&lt;script&gt;" in watched()


def test_a_generator_that_was_the_bottleneck_is_reported_first() -> None:
    text = checked(page("late", [result(run([shot(0, 20, late_ms=15)]))]))
    assert text.index('class="alarm"') < text.index('class="charts"')


def test_a_run_without_any_answer_can_be_drawn() -> None:
    assert "nothing was answered" in checked(page("none", [result(run([refused(0)]))]))


def test_of_several_runs_the_middle_one_is_drawn_and_all_are_listed() -> None:
    runs = [steady(2, took_ms=took) for took in (30, 60, 45)]
    assert middle_run(runs).summary.goodput_per_s == sorted(run.summary.goodput_per_s for run in runs)[1]
    assert "run of median goodput among 3" in checked(page("three", [result(*runs)]))


def test_a_sweep_is_a_hockey_stick() -> None:
    text = checked(page("sweep", [sweep(LOAD, server(300))]))
    assert "Throughput against offered load" in text


def test_the_command_writes_one_page_from_results_and_sweeps(tmp_path: Path) -> None:
    write_result(tmp_path / "result.json", result(steady(2, 20)))
    write_sweep(tmp_path / "sweep.json", sweep(LOAD, server(300)))
    files = [str(tmp_path / name) for name in ("result.json", "sweep.json")]
    assert main(["page", *files, "--output", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_text().count("<h1>") == 2


def test_a_file_that_is_neither_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other").write_text("[]")
    assert main(["page", str(tmp_path / "other"), "--output", str(tmp_path / "page.html")]) == 2
    assert "neither a result nor a sweep" in capsys.readouterr().err
    assert main(["page", str(tmp_path / "none"), "--output", str(tmp_path / "page.html")]) == 2
    assert capsys.readouterr().err.endswith("neither a result nor a sweep: No such file or directory\n")
    (tmp_path / "other").write_text("{}")
    assert main(["check", str(tmp_path / "other"), str(tmp_path / "objective.toml")]) == 2
    assert capsys.readouterr().err.endswith("is not a result of `loadtest run --json`: it lacks 'format'\n")
