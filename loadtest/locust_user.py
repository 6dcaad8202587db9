"""Runs a scenario as a locust user: the same requests from the same seed, sent by locust's client in its closed loop.

    from loadtest.locust_user import user_of
    ShopUser = user_of(Shop)          # in a locustfile

Needs locust, whose import patches much of the standard library (gevent): no other module here may import this one."""

import random
from collections.abc import Coroutine, Mapping
from itertools import count
from typing import Any, TypeVar

from locust import FastHttpUser, task

from loadtest.distribution import Distribution
from loadtest.scenario import Scenario
from loadtest.wires import Address, Flight, NoMetadata
from loadtest.wires.http import inputs_of, post
from loadtest.workload import Workload, prepare
from serving.protocol.messages import InferRequest, TensorDescription

T = TypeVar("T")


def user_of(
    scenario: type[Scenario], *, wire: str = "http-binary", seed: int = 0, tenant_header: str = "x-tenant"
) -> type[Any]:
    """Returns a user class for a locustfile. Its `host` is the server's address; requests are listed by task name.

    wire: `http-binary`, `http-json` or `http-raw`."""
    numbers = count()
    think = Distribution.parse(scenario.think, "think")

    class ScenarioUser(FastHttpUser):  # type: ignore[misc]
        workload: Workload | None = None  # shared by all users of a process

        def on_start(self) -> None:
            self.generator = random.Random(f"{seed} {next(numbers)}")
            if ScenarioUser.workload is None:
                client = LocustWire(self.client, Address.parse(self.host), wire.removeprefix("http-"))
                preparing = prepare(scenario, client, client.address, seed=seed, tenant_header=tenant_header)
                ScenarioUser.workload = _now(preparing)

        def wait_time(self) -> float:
            return think.number(self.generator)

        @task  # type: ignore[untyped-decorator]
        def ask(self) -> None:
            assert ScenarioUser.workload is not None
            prepared = ScenarioUser.workload.one(self.generator)
            url, headers, body = prepared.request
            self.client.post(url, data=body, headers=headers, name=prepared.task)

    ScenarioUser.__name__ = ScenarioUser.__qualname__ = scenario.__name__
    return ScenarioUser


class LocustWire:
    """The wire that prepares requests before the run. locust sends them."""

    def __init__(self, client: Any, address: Address, form: str) -> None:
        self.address = address
        self._client = client
        self._form = form

    async def describe(self, model: str) -> list[TensorDescription]:
        if self._form == "raw":
            return []
        url = f"http://{self.address.authority}/v2/models/{model}"
        answer = self._client.get(url, name="what the model takes")
        if answer.status_code != 200:
            raise NoMetadata(f"{url} answers {answer.status_code}: {answer.text}")
        return inputs_of(answer.json())

    def prepare(self, model: str, request: InferRequest, headers: Mapping[str, str]) -> object:
        path, all_headers, body = post(self.address, self._form, model, request, headers)
        return f"http://{self.address.authority}{path}", all_headers, body

    async def exchange(self, prepared: object, flight: Flight) -> None:
        raise NotImplementedError("locust sends the requests")

    async def close(self) -> None: ...


def _now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine and returns its result without an event loop. The coroutine never suspends, because locust's
    client blocks. Raises RuntimeError if it does."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise RuntimeError("the coroutine suspended")
