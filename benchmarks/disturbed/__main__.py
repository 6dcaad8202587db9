"""`python -m benchmarks.disturbed`: measures what `headway serve` answers in time beside disturbances.

    python -m benchmarks.disturbed                     # about five minutes
    python -m benchmarks.disturbed --only "stalls of 50 ms" --during 2 --after 2

Serves the MLP of the arena on the loopback. Each disturbance meets a light and a heavy load in its middle. The quotas
need a control group that can be created; without one they are left out. Needs Linux. Nothing else should run.
"""

import argparse
import contextlib
import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.arena.scenarios import scenario_of
from benchmarks.at_rest import ARENA
from benchmarks.disturbed.outcome import Found, found, table
from benchmarks.disturbed.page import PAGE, write
from benchmarks.disturbed.trouble import ANYWHERE, Group, Trouble, left, of_a_group
from benchmarks.overload import served
from benchmarks.peers.machine import machine
from benchmarks.peers.running import Running
from loadtest.load import Load
from loadtest.result import take
from loadtest.server_watch import ServerSample
from loadtest.shot import Shot
from loadtest.tally import Tally
from serving.config import Settings, load_settings

MODEL = "mlp"
FOLDER = Path(".headway/disturbed")
USERS = 64
BEFORE_S = 2.0
LOADS = (0.3, 2.0)  # of the best rate without a disturbance
PRIORITY = -5  # of the load generator, which would be on a machine of its own


def main() -> None:
    options = _options()
    settings = load_settings(ARENA)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    print(f"load generator at niceness {os.getpriority(os.PRIO_PROCESS, 0)}, the server at 0")
    rows = _rows(settings, ANYWHERE, None, options)
    try:
        group = Group()
    except OSError as error:
        print(f"no quotas: a control group cannot be created ({error})")
    else:
        try:
            rows += _rows(settings, of_a_group(group), group, options)
        finally:
            group.close()
    text = table(rows)
    print(text)
    facts = "; ".join(f"{name}: {value}" for name, value in machine().items())
    results = {"machine": machine(), "rows": [asdict(row) for row in rows]}
    (FOLDER / "disturbed.json").write_text(json.dumps(results, indent=2) + "\n")
    if options.write:
        write("measured", f"{facts}.\n\n{text}")


def _rows(
    settings: Settings, troubles: Mapping[str, Trouble], group: Group | None, options: argparse.Namespace
) -> list[Found]:
    chosen = {name: trouble for name, trouble in troubles.items() if not options.only or name in options.only}
    if not chosen:
        return []
    rows = []
    share = left(len(os.sched_getaffinity(0)))
    with served(settings, MODEL, FOLDER, started=group.take if group else lambda server: None) as server:
        calm = _load(settings, options)
        take(replace(calm, users=USERS, seconds=2.0))
        best_per_s = take(replace(calm, users=USERS, seconds=3.0))[0].summary.in_time / 3.0
        print(f"best rate in time without a disturbance, {USERS} users: {best_per_s:.0f}/s", flush=True)
        for name, trouble in chosen.items():
            for part in LOADS:
                load = replace(calm, rate=part * best_per_s)
                shots, phase = _disturbed(server, trouble, load, options.during)
                row = found(
                    name,
                    shots,
                    within_ms=load.within_ms or 0.0,
                    rate=load.rate,
                    best_per_s=best_per_s,
                    left=share[name],
                    phase=phase,
                    total_s=load.seconds,
                )
                rows.append(row)
                print(table([row]).splitlines()[-1], flush=True)
    return rows


def _load(settings: Settings, options: argparse.Namespace) -> Load:
    return Load(
        url=f"{settings.server.url}/v2/models/{MODEL}",
        scenario=scenario_of(MODEL, "oip"),
        rate=1.0,
        seconds=BEFORE_S + options.during + options.after,
        within_ms=settings.applications()[MODEL].latency_budget_ms,
        in_flight=1024,
        timeout_s=5.0,
    )


def _disturbed(
    server: Running, trouble: Trouble, load: Load, during_s: float
) -> tuple[list[Shot], tuple[float, float]]:
    """Sends the load and disturbs the server for a while. Returns the shots, and from when to when it was disturbed."""
    phase: list[float] = []
    threads: list[threading.Thread] = []

    def disturb(origin_s: float) -> None:
        time.sleep(max(0.0, origin_s + BEFORE_S - time.monotonic()))
        phase.append(time.monotonic() - origin_s)
        with trouble(server):
            time.sleep(during_s)
        phase.append(time.monotonic() - origin_s)

    def progress(tally: Tally, at_s: float, sample: ServerSample | None) -> None:
        if not threads:
            threads.append(threading.Thread(target=disturb, args=(time.monotonic() - at_s,)))
            threads[0].start()

    _, shots = take(load, progress)
    threads[0].join()
    return list(shots), (phase[0], phase[1])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.disturbed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", help="a disturbance, as in the table; several times")
    parser.add_argument("--during", type=float, default=5.0, help="seconds of disturbance (default 5)")
    parser.add_argument("--after", type=float, default=6.0, help="seconds of load after it (default 6)")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(PAGE.parents[2])} too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
