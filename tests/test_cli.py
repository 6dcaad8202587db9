"""Tests the output and the exit code of each subcommand of `headway`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from serving.cli import app
from serving.config import Settings
from serving.core.sizes import LARGEST_ROWS
from serving.operate import doctor
from serving.operate import launch as launcher
from serving.operate.doctor import Check, Verdict

DEMO = str(Path(__file__).parents[1] / "demo.yaml")


def headway(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def own_model(tmp_path: Path) -> Path:
    (tmp_path / "ours_beside_the_file.py").write_text("def make():\n    return None\n\nnumber = 3\n")
    file = tmp_path / "my.yaml"
    file.write_text("""\
models:
  - name: ours
    factory: ours_beside_the_file:make
    inputs: [{name: x, datatype: FP32, shape: [-1, 4]}]
    outputs: [{name: y, datatype: FP32, shape: [-1, 4]}]
""")
    return file


def test_logs_are_shown_to_people_and_to_programs(tmp_path: Path) -> None:
    line = '{"asctime": "12:00:00,1", "levelname": "INFO", "message": "scorer: completed", "deployment": "scorer"}'
    (tmp_path / "replica_scorer.log").write_text(line + "\n")
    assert headway("logs", "--folder", str(tmp_path)).output == "12:00:00,1 scorer scorer: completed\n"
    assert headway("logs", "--json", "--folder", str(tmp_path)).output == line + "\n"
    assert headway("logs", "--folder", str(tmp_path / "none")).exit_code == 1


def test_help_names_every_command_and_says_what_it_does() -> None:
    result = headway("--help")
    assert result.exit_code == 0
    for command in ("serve", "check-config", "explain", "settings", "doctor", "render"):
        assert command in result.output
        assert headway(command, "--help").exit_code == 0


def test_no_arguments_show_the_help_and_count_as_a_mistake() -> None:
    result = headway()
    assert (result.exit_code, "Usage" in result.output) == (2, True)


def test_good_settings_are_confirmed() -> None:
    result = headway("check-config", DEMO)
    assert result.exit_code == 0
    assert "good; 2 model(s): image-classifier, text-embedder" in result.output


def test_mistakes_are_printed_one_a_line_without_a_traceback(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("server: {port: 1}\nmodels: []\n")
    for command in (["check-config"], ["serve"], ["explain"], ["doctor"], ["render", "--to", "kuberay"]):
        result = headway(*command, str(file))
        assert result.exit_code == 2
        assert result.stderr.splitlines() == [
            f"{file}:1: server.port: unknown key; did you mean 'http_port'?",
            f"{file}:2: models: needs at least 1 entry",
        ]
        assert result.stdout == ""


def test_a_model_beside_its_settings_is_found(own_model: Path) -> None:
    assert headway("check-config", str(own_model), "--import").exit_code == 0


@pytest.mark.parametrize("name", ["models", "serving", "json", "queue"])
def test_a_file_beside_the_settings_may_have_any_name(own_model: Path, name: str) -> None:
    (own_model.parent / "ours_beside_the_file.py").rename(own_model.parent / f"{name}.py")
    own_model.write_text(own_model.read_text().replace("ours_beside_the_file", name))
    result = headway("check-config", str(own_model), "--import")
    assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("no_such_package.models:make", "no module is named 'no_such_package'"),
        ("ours_beside_the_file:mke", "has no 'mke'"),
        ("ours_beside_the_file:number", "a int cannot be called"),
    ],
)
def test_a_factory_that_cannot_be_imported_is_reported_with_its_line(
    own_model: Path, factory: str, message: str
) -> None:
    own_model.write_text(own_model.read_text().replace("ours_beside_the_file:make", factory))
    assert headway("check-config", str(own_model)).exit_code == 0
    result = headway("check-config", str(own_model), "--import")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{own_model}:3: models[0].factory: ")
    assert message in result.stderr


def test_a_module_that_fails_while_it_is_imported_is_reported_as_such(own_model: Path) -> None:
    (own_model.parent / "breaks_on_import.py").write_text("raise RuntimeError('no licence')\n")
    own_model.write_text(own_model.read_text().replace("ours_beside_the_file", "breaks_on_import"))
    result = headway("check-config", str(own_model), "--import")
    assert (result.exit_code, result.stderr.endswith("RuntimeError: no licence\n")) == (2, True)


def test_the_release_and_the_help_are_printed() -> None:
    assert headway("--version").output.startswith("headway ")
    assert "Serves PyTorch models" in headway("--help").output


def test_serve_says_what_happens_and_fails_where_a_model_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def serve(settings: Settings, config: Path, say: Callable[[str], None]) -> None:
        say(f"serving [{settings.server.name}] from {config.name}")
        raise launcher.StartFailed("text-embedder did not start: [Errno 2] no weights")

    monkeypatch.setattr(launcher, "serve", serve)
    result = headway("serve", DEMO)
    assert result.exit_code == 1
    assert result.stdout == "serving [headway] from demo.yaml\n"
    assert result.stderr == "text-embedder did not start: [Errno 2] no weights\n"


def test_explain_shows_values_limits_and_environment() -> None:
    result = headway("explain", DEMO)
    assert result.exit_code == 0
    for text in ("server.http_port", "max_ongoing_requests", "RAY_SERVE_ENABLE_HA_PROXY", "Learned while serving"):
        assert text in result.output
    assert "\x1b" not in result.output, "colour only on a terminal"


def test_explain_speaks_json_to_programs() -> None:
    explained = json.loads(headway("explain", DEMO, "--json").stdout)
    assert explained["derived"]["text-embedder"]["max_ongoing_requests"] == 1024 + 2 * LARGEST_ROWS
    assert explained["derived"]["text-embedder"]["graceful_shutdown_s"] == 30 + 60 + 5
    line = 1 + Path(DEMO).read_text().splitlines().index("  - name: text-embedder")
    assert {"key": "models[1].name", "value": "text-embedder", "source": f"{DEMO}:{line}"} in explained["settings"]
    assert "RAY_AUTH_MODE" not in explained["environment"]


def test_settings_lists_what_can_be_set() -> None:
    assert "models[].latency_budget_ms" in headway("settings").output
    assert headway("settings", "--markdown").output.startswith("| Setting | Default | Meaning |")


def test_doctor_fails_only_if_a_check_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    warning = Check(name="cores", verdict=Verdict.WARN, finding="one", advice="buy more")
    monkeypatch.setattr(doctor, "examine", lambda settings: iter([warning]))
    result = headway("doctor")
    assert (result.exit_code, "buy more" in result.output) == (0, True)
    monkeypatch.setattr(doctor, "examine", lambda settings: iter([warning, doctor.fail("ray", "none", "install it")]))
    result = headway("doctor", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)[1] == {
        "name": "ray",
        "verdict": "fail",
        "finding": "none",
        "advice": "install it",
    }


def test_an_unknown_target_is_a_mistake() -> None:
    assert headway("render", DEMO, "--to", "mainframe").exit_code == 2
