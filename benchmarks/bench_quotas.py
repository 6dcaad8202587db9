"""Nanoseconds of CPU per decision of a replica's quotas, without any store: admitted with its end, and refused.

    python -m benchmarks.bench_quotas [--requests N] [--rounds R]

Prints the fastest of the rounds: other work on the machine only adds to a round. `leased` takes a token of a lease, as
a replica does that shares its limits; `alone` decides by itself. The loop of the benchmark is subtracted.
"""

import argparse
import time
from collections.abc import Callable

from serving.gateway.quotas import ADMITTED, Quotas
from serving.testing.clock import ManualClock
from serving.traffic.alone import Sharing
from serving.traffic.lease import TURN_NS
from serving.traffic.sharing import Grant
from serving.traffic.tenants import Tenant

TENANTS = {f"tenant-{index}": Tenant(name=f"tenant-{index}", requests_per_minute=10**9) for index in range(100)}
FEW = {"few": Tenant(name="few", requests_per_minute=1, burst=1)}


def leased(count: int) -> Quotas:
    """Returns quotas in which every tenant holds a lease of `count` tokens."""
    quotas = Quotas(TENANTS, clock=ManualClock())
    quotas._sharing = Sharing()
    for account in quotas._accounts.values():
        account.lease._sharing = quotas._sharing
        account.lease.take(0)
        assert account.lease.ask(TURN_NS) is not None
        account.lease.granted(Grant(tokens=count, level=0, wait_ns=0))
    return quotas


def fastest_ns(work: Callable[[], None], rounds: int) -> int:
    least_ns = 1 << 62
    for _ in range(rounds):
        began = time.process_time_ns()
        work()
        least_ns = min(least_ns, time.process_time_ns() - began)
    return least_ns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    names = (list(TENANTS) * (arguments.requests // len(TENANTS) + 1))[: arguments.requests]

    def loop() -> None:
        for _ in names:
            pass

    def deciding(quotas: Quotas, names: list[str]) -> Callable[[], None]:
        def work() -> None:
            admit, release = quotas.admit, quotas.release
            for name in names:
                if admit(name, TURN_NS) is ADMITTED:
                    release(name)

        return work

    loop_ns = fastest_ns(loop, arguments.rounds)
    refusing = Quotas(FEW, clock=ManualClock())
    refusing.admit("few", TURN_NS)
    for what, quotas, asked in (
        ("leased, admitted and released", leased(arguments.requests * arguments.rounds), names),
        ("alone, admitted and released", Quotas(TENANTS, clock=ManualClock()), names),
        ("refused", refusing, ["few"] * arguments.requests),
    ):
        took_ns = fastest_ns(deciding(quotas, asked), arguments.rounds) - loop_ns
        print(f"{took_ns / arguments.requests:6.0f} ns  {what}")


if __name__ == "__main__":
    main()
