"""A simulation of replicas under load in windows of a second: Poisson arrivals, cold starts and latency budgets.

A window is a fluid approximation: the running replicas serve as many requests as they can, the rest waits, and requests
that would wait beyond the budget are refused.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from serving.scaling.policy import SECOND_NS, History, Policy
from serving.scaling.signals import Signal

PER_REPLICA = 100.0  # requests per second
BUDGET_S = 0.5
START_S = 20  # cold start of a replica
REPORT_S = 2  # age of a report when the policy sees it

POLICY = Policy(
    min_replicas=3,
    max_replicas=10,
    wait_ns=SECOND_NS // 4,
    queue_requests=1024,
    up_after_ns=2 * SECOND_NS,
    down_after_ns=600 * SECOND_NS,
    load_target=0.6,
)


@dataclass
class Story:
    """The result of a simulation. changes: (second, target before, target after, cause) of each change.

    received, missed: requests, and those of them that were refused. replica_seconds: running time of all replicas.
    """

    changes: list[tuple[int, int, int, str]] = field(default_factory=list)
    received: int = 0
    missed: int = 0
    replica_seconds: int = 0

    def reversals_s(self) -> list[int]:
        """Returns the seconds between successive changes in opposite directions."""
        pairs = zip(self.changes, self.changes[1:], strict=False)
        return [now[0] - was[0] for was, now in pairs if (was[2] > was[1]) != (now[2] > now[1])]


def simulate(
    rate: Callable[[int], float], seconds: int, seed: int, policy: Policy = POLICY, extra_wait_s: float = 0.0
) -> Story:
    """Simulates the policy. rate: requests per second as a function of the second.

    extra_wait_s: additional wait at each replica while it is busy for more than half of its time.
    """
    random, story, memory = Random(seed), Story(), History()
    wanted = running = max(1, policy.min_replicas)
    starting: list[int] = []  # the seconds at which starting replicas will run
    waiting = 0.0
    reports = [Signal()] * REPORT_S
    for second in range(1, seconds + 1):
        running += sum(ready <= second for ready in starting)
        starting = [ready for ready in starting if ready > second]
        arrived = poisson(random, rate(second))
        capacity = running * PER_REPLICA
        served = min(waiting + arrived, capacity)
        waiting += arrived - served
        missed = max(0.0, waiting - BUDGET_S * capacity)
        waiting -= missed
        busy = served / capacity if capacity else 0.0
        wait_s = waiting / capacity + (extra_wait_s if busy > 0.5 else 0.0) if capacity else 0.0
        reports.append(
            Signal(
                replicas=running,
                queued=int(waiting),
                wait_ns=int(wait_s * SECOND_NS),
                busy_ratio=busy,
                load_ratio=busy,
                received=arrived,
                missed=int(missed),
            )
        )
        story.received += arrived
        story.missed += int(missed)
        story.replica_seconds += running
        target = policy.decide(reports.pop(0), wanted, memory, second * SECOND_NS)
        if target.replicas != wanted:
            story.changes.append((second, wanted, target.replicas, target.cause))
            if target.replicas > wanted:
                starting += [second + START_S] * (target.replicas - wanted)
            else:
                kept = max(0, target.replicas - running)
                starting = starting[:kept]
                running = min(running, target.replicas)
            wanted = target.replicas
    return story


def poisson(random: Random, mean: float) -> int:
    """Returns a random count by the normal approximation, which is accurate enough for means of tens and hundreds."""
    return max(0, round(random.gauss(mean, mean**0.5))) if mean else 0
