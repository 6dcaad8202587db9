"""The arguments of perf_analyzer, the parsing of its output, and the source of its C library."""

from pathlib import Path

import yaml

from benchmarks.perf_analyzer.runs import GRPC, HTTP, Result, Way, page, result, table, ways
from benchmarks.perf_analyzer.tool import PUBLIC_MIRROR, Tool, apt_configuration, mirror
from serving.config import Settings

SETTINGS = Path(__file__).parents[2] / "benchmarks" / "perf_analyzer" / "headway.yaml"
WAY = Way("noop", "grpc", "stream", shared_memory=True)
FIGURES = """Concurrency,Inferences/Second,Client Send,p50 latency,p90 latency,p95 latency,p99 latency
4,4289.93,37,816,1273,1459,2403
"""


def test_every_wire_is_asked_in_every_mode_with_and_without_shared_memory() -> None:
    asked = {(way.wire, way.mode, way.shared_memory) for way in ways() if way.model == "noop"}
    modes = {("http", "sync"), ("http", "async"), ("grpc", "sync"), ("grpc", "async"), ("grpc", "stream")}
    assert asked == {(*mode, shared) for mode in modes for shared in (False, True)}


def test_the_server_has_the_models_and_listens_where_perf_analyzer_asks() -> None:
    settings = Settings.model_validate(yaml.safe_load(SETTINGS.read_text()))
    assert settings.server.shared_memory
    assert [f"127.0.0.1:{settings.server.http_port}", f"127.0.0.1:{settings.server.grpc_port}"] == [HTTP, GRPC]
    specs = {spec.name: spec for spec in settings.model_specs()}
    assert set(specs) == {way.model for way in ways()}
    assert specs["repeat"].decoupled
    assert specs["accumulate"].state


def test_a_run_becomes_arguments() -> None:
    expected = f"-m noop -i grpc -u {GRPC} --async --streaming --shared-memory system"
    assert " ".join(WAY.arguments) == expected


def test_figures_are_read_and_shown() -> None:
    got = result(WAY, 0, "Request count: 13108\n", FIGURES, failed=0)
    assert got == Result(WAY, 13108, 4289.93, 816, 2403)
    assert got.is_good
    assert table([got]).splitlines()[-1] == "| noop | grpc | stream | system | 13108 | 4290 | 816 | 2403 | 0 |"


def test_a_run_that_did_not_complete_has_no_figures_but_a_reason() -> None:
    got = result(WAY, 2, "Request concurrency: 4\nFailed to obtain stable measurement.\n\n", "", failed=3)
    assert not got.is_good
    assert "exit code 2: Failed to obtain stable measurement. | | | | 3 |" in table([got])
    written = page([got], release="1", commit="c", machine={"cores": "2"}, seconds=1)
    assert written.startswith("# perf_analyzer with Headway\n\n0 of 1 runs completed")
    assert not result(WAY, 0, "", FIGURES, failed=1).is_good


def test_the_mirror_is_the_machines_own_and_never_that_of_security_updates() -> None:
    own = "Debian http://mirror.example/debian/"
    assert mirror(f"Debian http://mirror.example/debian-security/\nElse http://else.example/\n{own}\n") == own[7:-1]
    assert mirror("Debian http://mirror.example/debian-security/\n") == PUBLIC_MIRROR


def test_apt_does_not_use_the_machines_own_files(tmp_path: Path) -> None:
    lines = apt_configuration(tmp_path).splitlines()
    assert len([line for line in lines if str(tmp_path) in line]) == 6
    assert Tool(tmp_path).command[0].startswith(str(tmp_path))
