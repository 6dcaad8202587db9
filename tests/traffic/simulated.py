"""A simulation of replicas that share one limit through a store, in simulated time and with a seed."""

import heapq
import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from serving.traffic.alone import Sharing
from serving.traffic.lease import SOONEST_NS, TURN_NS, Lease
from serving.traffic.quota import MINUTE_NS
from serving.traffic.sharing import Ask, Counter, Grant, settle
from serving.traffic.tenants import Tenant

SECOND_NS = 1_000_000_000
TRIP_NS = 800_000
GIVES_UP_NS = 100_000_000
MIDNIGHT_NS = 20_000 * 24 * 60 * MINUTE_NS  # what the store's clock shows at 0


@dataclass
class Outage:
    """A time in which the store does not answer. forgets: whether it comes back empty."""

    begins_ns: int
    ends_ns: int
    forgets: bool = True


@dataclass
class Fleet:
    """Replicas with a rate of requests per second each, as a function of the time in s."""

    tenant: Tenant
    rates: Sequence[Callable[[float], float]]
    seed: int
    outages: Sequence[Outage] = ()
    turn_ns: int = TURN_NS
    admitted_ns: list[int] = field(default_factory=list)
    by_replica: list[int] = field(default_factory=list)
    requests: int = 0
    asks: int = 0

    def run(self, seconds: float) -> list[int]:
        """Returns the instants at which requests were admitted."""
        chance = random.Random(self.seed)
        counter = Counter()
        sharings = [Sharing(replicas=len(self.rates)) for _ in self.rates]
        leases = [Lease(self.tenant, sharing, 0) for sharing in sharings]
        self.by_replica = [0] * len(leases)
        peaks = [max(rate(tenth / 10) for tenth in range(int(seconds * 10))) for rate in self.rates]
        ends_ns = int(seconds * SECOND_NS)
        events: list[tuple[int, int, str, int, object]] = []
        order = clock_ns = 0
        turned_ns = [0] * len(leases)
        planned_ns: list[int | None] = [None] * len(leases)

        def plan(at_ns: int, kind: str, replica: int, what: object = None) -> None:
            nonlocal order
            order += 1
            heapq.heappush(events, (at_ns, order, kind, replica, what))

        def plan_request(replica: int, now_ns: int) -> None:
            peak = peaks[replica]
            now_ns += 1 + int(chance.expovariate(peak) * SECOND_NS)
            while chance.random() * peak > self.rates[replica](now_ns / SECOND_NS):
                now_ns += 1 + int(chance.expovariate(peak) * SECOND_NS)
            plan(now_ns, "request", replica)

        def wake(replica: int) -> None:
            """Brings the next turn forward, unless an answer is awaited."""
            if planned_ns[replica] is not None:
                plan_turn(replica, max(turned_ns[replica] + SOONEST_NS, clock_ns))

        def plan_turn(replica: int, at_ns: int) -> None:
            earlier_ns = planned_ns[replica]
            if earlier_ns is None or at_ns < earlier_ns:
                planned_ns[replica] = at_ns
                plan(at_ns, "turn", replica)

        for replica, sharing in enumerate(sharings):
            sharing.wake = lambda tenant, replica=replica: wake(replica)  # type: ignore[misc]
        for outage in self.outages:
            if outage.forgets:
                plan(outage.begins_ns, "forget", 0)
        for replica in range(len(leases)):
            plan_request(replica, 0)
            plan_turn(replica, chance.randrange(self.turn_ns))
        while events and (now_ns := events[0][0]) < ends_ns:
            _, _, kind, replica, what = heapq.heappop(events)
            clock_ns = now_ns
            lease, sharing = leases[replica], sharings[replica]
            if kind == "request":
                self.requests += 1
                if lease.take(now_ns):
                    self.admitted_ns.append(now_ns)
                    self.by_replica[replica] += 1
                plan_request(replica, now_ns)
            elif kind == "forget":
                counter = Counter()
            elif kind == "turn":
                if planned_ns[replica] != now_ns:
                    continue  # it was brought forward
                planned_ns[replica], turned_ns[replica] = None, now_ns
                ask = lease.ask(now_ns)
                if ask is None:
                    if not any(outage.begins_ns <= now_ns < outage.ends_ns for outage in self.outages):
                        sharing.alone_since_ns = None  # a turn without asks is a heartbeat
                    plan_turn(replica, now_ns + self.turn_ns)
                    continue
                self.asks += 1
                plan(now_ns + TRIP_NS, "store", replica, ask)
            elif kind == "store":
                assert isinstance(what, Ask)
                if any(outage.begins_ns <= now_ns < outage.ends_ns for outage in self.outages):
                    plan(now_ns + GIVES_UP_NS, "lost", replica)
                else:
                    counter, grant = settle(counter, what, MIDNIGHT_NS + now_ns)
                    plan(now_ns + TRIP_NS, "grant", replica, grant)
            else:
                if kind == "lost":
                    lease.lost()
                    if sharing.alone_since_ns is None:
                        sharing.alone_since_ns = now_ns
                else:
                    assert isinstance(what, Grant)
                    sharing.alone_since_ns = None
                    lease.granted(what)
                plan_turn(replica, now_ns + self.turn_ns)
        return self.admitted_ns


def steady(rate: float) -> Callable[[float], float]:
    return lambda second: rate


def every_minute(admitted_ns: Sequence[int], from_s: float, to_s: float) -> tuple[int, int]:
    """Returns the least and the most requests admitted in any sliding minute within this time."""
    from_ns, to_ns = int(from_s * SECOND_NS), int(to_s * SECOND_NS)
    begins = {from_ns, to_ns - MINUTE_NS}
    for at_ns in admitted_ns:
        begins |= {at_ns, at_ns + 1, at_ns - MINUTE_NS, at_ns - MINUTE_NS + 1}
    counts = [
        bisect_left(admitted_ns, begin_ns + MINUTE_NS) - bisect_left(admitted_ns, begin_ns)
        for begin_ns in begins
        if from_ns <= begin_ns <= to_ns - MINUTE_NS
    ]
    return min(counts), max(counts)
