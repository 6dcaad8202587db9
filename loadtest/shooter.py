"""Shoots on schedule, whatever the server does: an open loop. A shot that cannot leave is counted, never delayed.

A closed loop waits for answers before it asks again, so a server that stalls is asked less and looks better than it is
(coordinated omission). Here the schedule stands, and latency counts from the planned instant."""

import asyncio
from collections.abc import Sequence
from time import perf_counter_ns

from loadtest.payloads import Payload
from loadtest.shot import Shot
from loadtest.wires.http import Answer, BadAnswer, Connection, ConnectionLost, Target, connect

_LEAD_NS = 1_000_000  # between now and instant zero, so that the first shot is not late by our own preparation


async def shoot(
    url: str,
    schedule: Sequence[int],
    payload: Payload | Sequence[Payload],
    *,
    connections: int = 256,
    timeout_s: float = 10.0,
) -> list[Shot]:
    """One shot per instant of the schedule (ns since the start, ascending), in its order.

    payload: one for all, or several, taken in turn. connections: the most open at once; a shot that finds all of them
    busy is not sent, since waiting for one would close the loop. Nothing is sent twice."""
    target = Target.parse(url)
    payloads = [payload] if isinstance(payload, Payload) else list(payload)
    requests = [target.request(one.body, one.headers) for one in payloads]
    shooter = Shooter(target, connections, timeout_s)
    shots: list[Shot] = [Shot(planned_ns) for planned_ns in schedule]

    async def fire(index: int) -> None:
        shots[index] = await shooter.fire(schedule[index], requests[index % len(requests)])

    try:
        # The group owns the shots in flight and waits for the last of them.
        async with asyncio.TaskGroup() as flights:
            for index, planned_ns in enumerate(schedule):
                await shooter.wait_until(planned_ns)
                flights.create_task(fire(index))
    finally:
        shooter.close()
    return shots


class Shooter:
    """The connections of one run and its clock. `fire` is one shot; `shoot` does the rest."""

    def __init__(self, target: Target, connections: int, timeout_s: float) -> None:
        self._target = target
        self._limit = connections
        self._timeout_s = timeout_s
        self._idle: list[Connection] = []
        self._busy = 0
        self._start_ns = perf_counter_ns() + _LEAD_NS

    async def wait_until(self, planned_ns: int) -> None:
        # In the past: still one turn of the loop, or a burst would keep the answers from being read.
        await asyncio.sleep(max(0, self._start_ns + planned_ns - perf_counter_ns()) / 1e9)

    async def fire(self, planned_ns: int, request: bytes) -> Shot:
        if self._busy >= self._limit:
            return Shot(planned_ns, error=f"not sent: all {self._limit} connections busy")
        self._busy += 1
        connection: Connection | None = None
        answer, error = None, None
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = self._take_idle() or await connect(self._target)
                answer = await connection.exchange(request)
        except TimeoutError:
            error = "timed out" if connection is not None else "not sent: timed out while connecting"
        except ConnectionLost as lost:
            error = f"connection lost: {lost}" if connection is not None else f"not sent: connection {lost}"
        except BadAnswer as bad:
            error = f"bad answer: {bad}"
        finally:
            self._busy -= 1
            if connection is not None and connection.is_open:
                self._idle.append(connection)
        return self._shot(planned_ns, connection, answer, error)

    def _take_idle(self) -> Connection | None:
        # The one used last: the server is the least likely to have given it up.
        while self._idle:
            if (connection := self._idle.pop()).is_open:
                return connection
        return None

    def _shot(self, planned_ns: int, connection: Connection | None, answer: Answer | None, error: str | None) -> Shot:
        done_ns = perf_counter_ns() if answer is not None else None
        if answer is not None and answer.status >= 400:
            error = answer.body[:200].decode(errors="replace") or f"status {answer.status} without a body"
        return Shot(
            planned_ns=planned_ns,
            sent_ns=self._since_start(connection.sent_ns if connection else None),
            first_byte_ns=self._since_start(connection.first_byte_ns if connection else None),
            done_ns=self._since_start(done_ns),
            status=answer.status if answer is not None else None,
            error=error,
        )

    def _since_start(self, instant_ns: int | None) -> int | None:
        return None if instant_ns is None else instant_ns - self._start_ns

    def close(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()
