"""Measures the cost of detecting a disconnected client while its request waits: four methods, microseconds per request.

    python -m benchmarks.bench_disconnect

`receive()` works like uvicorn's: it waits for an event that is set when the answer is sent or the client disconnects.
serving/api/http/disconnect.py explains the method that was chosen.
"""

import asyncio
import importlib.util
import time
from collections.abc import Awaitable, Callable

from serving.api.http.disconnect import DisconnectWatch
from serving.core.outcome import Cancelled, Outcome

REQUESTS, AT_ONCE, ROUNDS = 20_000, 32, 3
Waiting = asyncio.Future[Outcome]
Receive = Callable[[], Awaitable[dict[str, str]]]
Method = Callable[[Waiting, Receive], Awaitable[object]]


class Connection:
    def __init__(self) -> None:
        self.over = asyncio.Event()

    async def receive(self) -> dict[str, str]:
        await self.over.wait()
        return {"type": "http.disconnect"}


async def not_watched(waiting: Waiting, receive: Receive) -> None:
    await waiting


async def task_from_the_start(waiting: Waiting, receive: Receive) -> None:
    watcher = asyncio.ensure_future(receive())
    try:
        await waiting
    finally:
        watcher.cancel()


async def coroutine_by_hand(waiting: Waiting, receive: Receive) -> None:
    coroutine = receive()
    blocker = coroutine.send(None)  # type: ignore[attr-defined]
    blocker._asyncio_future_blocking = False
    blocker.add_done_callback(lambda _: None)
    try:
        await waiting
    finally:
        coroutine.close()  # type: ignore[attr-defined]


async def timer_per_request(waiting: Waiting, receive: Receive) -> None:
    timer = asyncio.get_running_loop().call_later(0.025, lambda: None)
    try:
        await waiting
    finally:
        timer.cancel()


async def measure(method: Method) -> float:
    loop = asyncio.get_running_loop()
    begin = time.process_time_ns()
    for _ in range(REQUESTS // AT_ONCE):
        connections = [Connection() for _ in range(AT_ONCE)]
        waiting: list[Waiting] = [loop.create_future() for _ in range(AT_ONCE)]
        tasks = [
            asyncio.ensure_future(method(future, connection.receive))
            for future, connection in zip(waiting, connections, strict=True)
        ]
        await asyncio.sleep(0)
        for future, connection in zip(waiting, connections, strict=True):
            future.set_result(Cancelled())
            connection.over.set()
        await asyncio.gather(*tasks)
    return (time.process_time_ns() - begin) / REQUESTS / 1000


async def compare() -> None:
    methods: dict[str, Method] = {
        "not_watched": not_watched,
        "task_from_the_start": task_from_the_start,
        "coroutine_by_hand": coroutine_by_hand,
        "timer_per_request": timer_per_request,
        "one_timer_for_all": DisconnectWatch().outcome,
    }
    least: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, method in methods.items():
            least[name] = min(least.get(name, float("inf")), await measure(method))
    for name, took in least.items():
        print(f"  {name:22s} {took:6.2f}  +{took - least['not_watched']:.2f}")


def main() -> None:
    print("asyncio, µs per request and what watching adds")
    asyncio.run(compare())
    if importlib.util.find_spec("uvloop"):
        import uvloop

        print("uvloop")
        uvloop.run(compare())


if __name__ == "__main__":
    main()
