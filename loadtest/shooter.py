"""Sends requests on schedule, independent of the server: an open loop. A shot that cannot be sent is counted, never
delayed.

A closed loop waits for answers before it sends the next requests, so a server that stalls gets fewer requests and
looks better than it is (coordinated omission). Here the schedule is fixed, and latency is measured from the planned
instant."""

import asyncio
from collections.abc import Callable, Sequence
from time import perf_counter_ns

from loadtest.arrivals import SECOND_NS
from loadtest.shot import Shot
from loadtest.wires import Flight, NoAnswer, Wire
from loadtest.workload import Prepared, Workload

LEAD_NS = 2_000_000  # between now and the start of the run, so that the first shot is not late
Seen = Callable[[Shot], None]


async def shoot(
    wire: Wire,
    schedule: Sequence[int],
    requests: Sequence[Prepared],
    *,
    start_ns: int | None = None,
    in_flight: int = 256,
    timeout_s: float = 10.0,
    seen: Seen | None = None,
) -> list[Shot]:
    """Sends one shot per instant of the schedule (ns since the start, ascending). Returns the shots in this order. No
    request is retried.

    requests: one per instant, used repeatedly if there are fewer. start_ns: the start of the run on `perf_counter_ns`.
    in_flight: the most shots at once; a further shot is not sent, because waiting would close the loop.
    seen: called with every finished shot."""
    shooter = Shooter(wire, start_ns, in_flight, timeout_s)
    shots: list[Shot] = [Shot(planned_ns) for planned_ns in schedule]

    async def fire(index: int) -> None:
        shots[index] = await shooter.fire(schedule[index], requests[index % len(requests)])
        if seen is not None:
            seen(shots[index])

    # The group owns the shots in flight and waits for them.
    async with asyncio.TaskGroup() as flights:
        for index, planned_ns in enumerate(schedule):
            await shooter.wait_until(planned_ns)
            flights.create_task(fire(index))
    return shots


class Shooter:
    """Sends shots with the clock of one run and a limit on shots in flight. `fire` sends one shot."""

    def __init__(self, wire: Wire, start_ns: int | None, in_flight: int, timeout_s: float) -> None:
        self._wire = wire
        self._limit = in_flight
        self._timeout_s = timeout_s
        self._busy = 0
        self._start_ns = perf_counter_ns() + LEAD_NS if start_ns is None else start_ns

    def now_ns(self) -> int:
        return perf_counter_ns() - self._start_ns

    async def wait_until(self, planned_ns: int) -> None:
        # Sleeps 0 s for an instant in the past, so that answers are read during a burst.
        await asyncio.sleep(max(0, planned_ns - self.now_ns()) / SECOND_NS)

    async def fire(self, planned_ns: int, request: Prepared) -> Shot:
        flight = Flight()
        if self._busy >= self._limit:
            flight.error = f"not sent: {self._limit} already in flight"
            return self._shot(planned_ns, request, flight)
        self._busy += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._wire.exchange(request.request, flight)
        except TimeoutError:
            flight.error = "timed out" if flight.sent_ns is not None else "not sent: timed out while connecting"
        except NoAnswer as lost:
            flight.error = str(lost) if flight.sent_ns is not None else f"not sent: {lost}"
        finally:
            self._busy -= 1
        return self._shot(planned_ns, request, flight)

    def _shot(self, planned_ns: int, request: Prepared, flight: Flight) -> Shot:
        return Shot(
            planned_ns=planned_ns,
            sent_ns=self._since_start(flight.sent_ns),
            first_byte_ns=self._since_start(flight.first_byte_ns),
            done_ns=self._since_start(flight.done_ns) if flight.status is not None else None,
            status=flight.status,
            error=flight.error,
            task=request.task,
            tenant=request.tenant,
            rows=request.rows,
            deadline_ns=request.deadline_ns,
        )

    def _since_start(self, instant_ns: int | None) -> int | None:
        return None if instant_ns is None else instant_ns - self._start_ns


async def load_schedule(
    wire: Wire, workload: Workload, schedule: Sequence[int], *, seed: int, share: tuple[int, int], **options: object
) -> list[Shot]:
    """Sends the part of a schedule that belongs to one of several processes. `share`: (index, number of processes).

    Requests are assigned before the schedule is divided, so the load is the same for any number of processes."""
    which, count = share
    order = workload.order(len(schedule), seed)
    requests = [workload.requests[index] for index in order]
    return await shoot(wire, schedule[which::count], requests[which::count], **options)  # type: ignore[arg-type]
