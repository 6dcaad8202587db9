"""Tests that the applications are deployed as soon as Ray Serve's controller exists, with a scripted Ray."""

from collections.abc import Callable, Iterator
from threading import Event

import pytest
import ray
from ray import serve

from serving.cluster.starting import starting_serve


class Scripted:
    """Ray Serve whose start ends when it is told to.

    looks: how often the controller is looked for before it is found."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.looks = 0
        self.error: Exception | None = None
        self.proxies_are_up = Event()
        self.is_over = False
        self.options: dict[str, object] = {}
        monkeypatch.setattr(serve, "start", self._start)
        monkeypatch.setattr(ray, "get_actor", self._get_actor)

    def _start(self, **options: object) -> None:
        self.options = options
        assert self.proxies_are_up.wait(60)
        self.is_over = True
        if self.error is not None:
            raise self.error

    def _get_actor(self, name: str, namespace: str) -> object:
        assert (name, namespace) == ("SERVE_CONTROLLER_ACTOR", "serve")
        self.looks -= 1
        if self.looks >= 0:
            raise ValueError(f"no actor {name}")
        return object()


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    scripted = Scripted(monkeypatch)
    yield scripted
    scripted.proxies_are_up.set()


def test_the_body_runs_once_there_is_a_controller_and_before_the_proxies_are_up(scripted: Scripted) -> None:
    scripted.looks = 3
    with starting_serve(http_options={"port": 1}):
        assert (scripted.looks, scripted.proxies_are_up.is_set()) == (-1, False)
        scripted.proxies_are_up.set()
    assert scripted.options == {"http_options": {"port": 1}}


def test_without_a_controller_nothing_is_deployed(scripted: Scripted) -> None:
    scripted.looks, scripted.error = 1_000_000, RuntimeError("no resources")
    scripted.proxies_are_up.set()
    with pytest.raises(RuntimeError, match="no resources"), starting_serve():
        pytest.fail("there is no controller")


def start(deploy: Callable[[], object]) -> None:
    with starting_serve():
        deploy()


def test_proxies_that_do_not_start_fail_the_start(scripted: Scripted) -> None:
    scripted.error = TimeoutError("HTTP proxies not available")
    with pytest.raises(TimeoutError, match="not available"):
        start(scripted.proxies_are_up.set)
    assert scripted.proxies_are_up.is_set(), "it was deployed before"


def test_a_deployment_that_fails_waits_for_the_proxies_and_raises_its_own_error(scripted: Scripted) -> None:
    def deploy() -> None:
        scripted.proxies_are_up.set()
        raise LookupError

    with pytest.raises(LookupError):
        start(deploy)
    assert scripted.is_over
