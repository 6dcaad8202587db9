"""Releases versions of a registry on a real Ray, under load: a good one, and one that fails in a fifth of its calls."""

from collections.abc import Iterator

import httpx
import pytest
from typer.testing import CliRunner

from serving.cli import app
from serving.operate.launch import Cluster
from tests.cluster.releasing import FAILING, GOOD, URL, Load, route, serving
from tests.patience import eventually

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(240)]
FAST = ("--soak", "2s", "--deadline", "90s", "--every", "0.2", "--url", URL, "--by", "ann")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    yield from serving(tmp_path_factory.mktemp("releasing"), GOOD, FAILING)


def test_a_good_version_goes_to_all_requests_without_a_failure(cluster: Cluster) -> None:
    with Load() as load:
        result = CliRunner().invoke(app, ["release", "run", "ranker@v2", *FAST])
        assert result.exit_code == 0, result.output
        asked = load.answers[200, "2"]
        eventually(lambda: load.answers[200, "2"] > asked + 100, patience_s=30)
    assert load.failures == []
    assert set(load.answers) == {(200, "1"), (200, "2")}
    assert route() == {"stable": "2", "candidate": None, "share": 0}


def test_a_version_that_fails_in_a_fifth_of_its_calls_is_rolled_back_and_removed(cluster: Cluster) -> None:
    with Load() as load:
        result = CliRunner().invoke(app, ["release", "run", "ranker@v3", *FAST])
        assert result.exit_code == 3, result.output
        assert "requests computed by the candidate failed" in result.output
        asked = load.answers[200, "2"]
        eventually(lambda: load.answers[200, "2"] > asked + 100, patience_s=30)
        answered = load.answers[200, "3"]
        eventually(lambda: load.answers[200, "2"] > asked + 500, patience_s=30)
        assert load.answers[200, "3"] == answered, "nobody is sent to it any more"
    assert all("no such branch" in failure for failure in load.failures)
    assert route() == {"stable": "2", "candidate": None, "share": 0}
    eventually(lambda: "3" not in served(), patience_s=40)


def served() -> list[str]:
    """Returns the versions that are served."""
    versions: list[str] = httpx.get(f"{URL}/v2/models/ranker/route").json()["versions"]
    return versions
