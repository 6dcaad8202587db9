"""The CI/CD examples: they hold every stage, and every `headway` command in them is one that there is."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from serving.cli import app

FOLDER = Path(__file__).parents[2] / "deploy" / "ci"
FILES = ("github-actions.yml", "gitlab-ci.yml")
STAGES = [
    "lint",
    "test",
    "build",
    "data-check",
    "train",
    "model-check",
    "register",
    "staging",
    "canary",
    "rollout",
    "monitor",
]
_JOINT = re.compile(r"&&|\|\||[|;>]")


def jobs(name: str) -> dict[str, Any]:
    told = yaml.safe_load((FOLDER / name).read_text())
    found = told["jobs"] if name.startswith("github") else told
    return {job: facts for job, facts in found.items() if isinstance(facts, dict)}


def scripts(job: dict[str, Any]) -> Iterator[str]:
    """Yields the lines of shell in a job."""
    for step in job.get("steps", []):
        yield from str(step.get("run", "")).splitlines()
    yield from job.get("script", [])


def commands(name: str) -> list[list[str]]:
    """Returns the words of every `headway` command in the file, with variables in place of their values."""
    lines = [line for job in jobs(name).values() for line in scripts(job)]
    parts = [part.strip() for line in lines for part in _JOINT.split(re.sub(r"\$\{\{.*?\}\}", "1", line))]
    return [shlex.split(part)[1:] for part in parts if part.startswith("headway ")]


def parse(words: list[str]) -> None:
    """Fails unless the command takes these words: `--help` at their end is then all that it does."""
    result = CliRunner().invoke(app, [*words, "--help"])
    assert result.exit_code == 0, result.output
    command: Any = typer.main.get_command(app)
    context = None
    while hasattr(command, "commands"):
        context = command.make_context(command.name, list(words), parent=context)
        _, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
    command.make_context(command.name, list(words), parent=context)


@pytest.mark.parametrize("name", FILES)
def test_every_stage_is_there(name: str) -> None:
    assert [stage for stage in STAGES if stage not in jobs(name)] == []


@pytest.mark.parametrize("name", FILES)
def test_every_command_is_one_that_there_is(name: str) -> None:
    found = commands(name)
    assert {tuple(words[:2]) for words in found} >= {
        ("registry", "push"),
        ("registry", "approve"),
        ("release", "run"),
        ("release", "watch"),
        ("release", "status"),
    }
    for words in found:
        parse(words)


def test_a_command_that_there_is_not_is_noticed() -> None:
    for words in (["release", "run", "ranker@1", "--stepz", "5"], ["release", "go"], ["release", "run"]):
        with pytest.raises(Exception, match=r"No such|Missing"):
            parse(words)


def test_stages_wait_for_those_before_them() -> None:
    found = jobs("github-actions.yml")

    def before(job: str) -> set[str]:
        needs = found[job].get("needs", [])
        direct = {needs} if isinstance(needs, str) else set(needs)
        return direct.union(*map(before, direct)) if direct else set()

    assert before("rollout") >= {"lint", "test", "build", "data-check", "train", "model-check", "register", "canary"}
    stages = yaml.safe_load((FOLDER / "gitlab-ci.yml").read_text())["stages"]
    order = [stages.index(jobs("gitlab-ci.yml")[job]["stage"]) for job in STAGES]
    assert order == sorted(order)
