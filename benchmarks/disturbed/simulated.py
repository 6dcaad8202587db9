"""`python -m benchmarks.disturbed.simulated`: answers in time beside each disturbance, in simulated time.

--write   writes them to docs/benchmarks/disturbed.md too
"""

import argparse
from math import isinf
from statistics import median

from benchmarks.disturbed.page import PAGE, write
from benchmarks.peers.report import grid
from serving.testing.simulation.disturbed import DISTURBANCES, SERVERS, Answered, Span, play

LOADS = (0.1, 0.2, 0.4, 1.3, 2.0)
SPAN = Span.of(1.0, 4.0, 5.0)
SEEDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.disturbed.simulated", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(PAGE.parents[2])} too")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many; the median is shown")
    options = parser.parse_args()
    seeds = range(1, options.seeds + 1)
    lines = []
    for disturbance in DISTURBANCES:
        for server in SERVERS:
            found = [[play(server, disturbance, load, SPAN, seed) for seed in seeds] for load in LOADS]
            lines.append([disturbance, server, *map(_shown, found)])
            print("  ".join(lines[-1]), flush=True)
    text = grid(["disturbance", "server", *(f"load {load:g}" for load in LOADS)], lines)
    print(text)
    if options.write:
        write("simulated", text)


def _shown(found: list[Answered]) -> str:
    """Returns the share of the bound, and the seconds until recovery if there are any."""
    share, recovered_s = median(one.of_possible for one in found), median(one.recovered_s for one in found)
    after = "not in 5 s" if isinf(recovered_s) else f"{recovered_s:g} s"
    return f"{share:.2f}, {after}" if recovered_s else f"{share:.2f}"


if __name__ == "__main__":
    main()
