"""Tests the repository index and readiness by the answers of Ray Serve's controller, and without an answer."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from serving.api.entry import ModelEntry
from serving.cluster.front.catalog import UNASKED, Catalog, ModelState, model_state

CONFIGURED = [ModelEntry(name="m", version="1")]


def application(status: str, message: str = "") -> SimpleNamespace:
    deployment = SimpleNamespace(replica_states={"RUNNING": 1}, message=message)
    return SimpleNamespace(status=status, message="see the deployment", deployments={"ModelReplica": deployment})


def status(name: str = "RUNNING") -> SimpleNamespace:
    return SimpleNamespace(applications={"m": application(name)})


@pytest.mark.parametrize(
    ("name", "running", "state"),
    [
        ("RUNNING", 2, ModelState("READY")),
        ("RUNNING", 0, ModelState("READY")),  # it is scaled to zero, and a request makes it start
        ("DEPLOYING", 0, ModelState("LOADING", "see the deployment")),
        ("DEPLOYING", 1, ModelState("READY")),  # being updated
        ("DEPLOY_FAILED", 0, ModelState("UNAVAILABLE", "ValueError: no")),
        ("DEPLOY_FAILED", 1, ModelState("READY", "ValueError: no")),  # the previous version answers
        ("UNHEALTHY", 1, ModelState("READY", "ValueError: no")),
        ("DELETING", 0, ModelState("UNLOADING")),
    ],
)
def test_a_model_is_ready_while_it_answers(name: str, running: int, state: ModelState) -> None:
    assert model_state(application(name, "Error:\nValueError: no\n"), running=running) == state


def test_a_model_that_is_not_deployed_was_unloaded_if_clients_may_unload() -> None:
    unloaded = ModelState("UNAVAILABLE", "unloaded", wanted=False)
    assert model_state(None, running=0, explicit=True) == unloaded
    assert model_state(application("DELETING"), running=1, explicit=True) == unloaded
    assert model_state(None, running=0) == ModelState("UNAVAILABLE", "not deployed")


def states(models: list[ModelEntry]) -> list[tuple[object, object]]:
    return [(model.state, model.reason) for model in models]


def test_concurrent_callers_share_one_call_to_the_controller() -> None:
    questions: list[int] = []

    def ask() -> SimpleNamespace:
        questions.append(1)
        return status()

    async def story() -> None:
        catalog = Catalog(CONFIGURED, ask=ask)
        told = await asyncio.gather(*(catalog.models() for _ in range(5)))
        assert [states(models) for models in told] == [[("READY", "")]] * 5

    asyncio.run(story())
    assert len(questions) == 1


def test_nothing_is_ready_before_the_controller_has_answered() -> None:
    def ask() -> SimpleNamespace:
        raise ConnectionError("no controller")

    async def story() -> None:
        assert states(await Catalog(CONFIGURED, ask=ask).models()) == [("UNAVAILABLE", UNASKED)]

    asyncio.run(story())


def test_a_controller_that_does_not_answer_leaves_the_last_known_states_and_delays_callers_briefly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serving.cluster.front.catalog.FRESH_NS", 0)
    monkeypatch.setattr("serving.cluster.front.catalog.PATIENCE_S", 0.01)
    hangs = threading.Event()
    answers = [status, lambda: hangs.wait() and status("DELETING")]

    async def story() -> None:
        catalog = Catalog(CONFIGURED, ask=lambda: answers.pop(0)())
        first = await catalog.models()
        while states(first) != [("READY", "")]:
            first = await catalog.models()
        assert states(await catalog.models()) == [("READY", "")]
        assert states(await catalog.models()) == [("READY", "")], "and it is not asked again meanwhile"
        hangs.set()
        while states(await catalog.models()) != [("UNLOADING", "")]:
            pass

    asyncio.run(story())


def test_an_answer_from_before_a_change_is_not_believed() -> None:
    asked, go_on = threading.Event(), threading.Event()

    def old() -> SimpleNamespace:
        asked.set()
        go_on.wait()
        return status("RUNNING")

    answers = [old, lambda: SimpleNamespace(applications={})]

    async def story() -> None:
        catalog = Catalog(CONFIGURED, ask=lambda: answers.pop(0)())
        before = asyncio.create_task(catalog.models())
        await asyncio.to_thread(asked.wait)
        catalog.forget()
        assert states(await catalog.models()) == [("UNAVAILABLE", "not deployed")]
        go_on.set()
        assert states(await before) == [("UNAVAILABLE", "not deployed")]

    asyncio.run(story())
