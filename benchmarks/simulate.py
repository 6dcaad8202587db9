"""`python -m benchmarks.simulate`: compares the core with the batching rules of other servers, in simulated time.

--quick       rough numbers in seconds
--seed N      the seed of all random numbers
--only NAME   one section; may be given several times
--write       writes docs/benchmarks/simulation.md too
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.simulation import sharing, steady, trouble
from benchmarks.simulation.report import render
from serving.testing.simulation.effort import QUICK, Effort

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks" / "simulation.md"
SECTIONS = {
    "bearable": steady.bearable,
    "overload": steady.overload,
    "latency": steady.latency,
    "suite": steady.suite,
    "fairness": sharing.fairness,
    "shares": sharing.shares,
    "budgets": sharing.budgets,
    "padding": sharing.padding,
    "learning": trouble.learning,
    "faults": trouble.faults,
    "lanes": trouble.lanes,
}
INTRODUCTION = """# The batching queue in simulation

Compares the scheduling core (`serving/core`, the server's own code) with the batching rules of other servers, on one
simulated device, in simulated time. Written by `{command}`; the same command gives the same numbers on every machine.

A batch of b rows takes alpha*b + beta ms, with 2 % noise; D is the latency budget in ms. Set A: alpha 1, beta 5, D 25,
at most 64 rows. Set B: alpha 0.05, beta 1, D 10, 128 rows. Set C: alpha 0.3, beta 2, D 40, 64 rows. Scheduling takes no
simulated time, so the results compare decisions, not the speed of the code that makes them.

"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulate", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="rough numbers in seconds")
    parser.add_argument("--seed", type=int, default=1, help="of all random numbers")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="one section")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(PAGE.parents[2])} too")
    options = parser.parse_args()
    effort = replace(QUICK if options.quick else Effort(), seed=options.seed)
    sections = []
    for name in options.only or SECTIONS:
        began = time.perf_counter()
        sections.append(SECTIONS[name](effort))
        sys.stderr.write(f"{name}: {time.perf_counter() - began:.1f} s\n")
    report = render(sections)
    sys.stdout.write(f"seed {effort.seed}\n\n{report}")
    if options.write:
        command = " ".join(["python -m benchmarks.simulate", *sys.argv[1:]])
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(INTRODUCTION.format(command=command) + report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
