"""Builds results from numbers, without a run."""

from collections.abc import Sequence

from loadtest.fleet import Flown
from loadtest.load import Load
from loadtest.result import Result, Run, run_of
from loadtest.server_watch import ServerSample
from loadtest.shot import Shot

MS, SECOND = 1_000_000, 1_000_000_000
LOAD = Load(
    url="http://there/v2/models/m", scenario={"tasks": {"fill": {}}}, rate=100, seconds=10, within_ms=50, processes=1
)


def shot(at_ms: float, took_ms: float, *, tenant: str = "", task: str = "a", late_ms: float = 0.0) -> Shot:
    planned, sent = round(at_ms * MS), round((at_ms + late_ms) * MS)
    done = round((at_ms + took_ms) * MS)
    return Shot(planned, sent, done, done, 200, None, task=task, tenant=tenant)


def refused(at_ms: float, tenant: str = "") -> Shot:
    instant = round(at_ms * MS)
    return Shot(instant, instant, instant + MS, instant + MS, 503, "the queue is full", task="a", tenant=tenant)


def run(shots: Sequence[Shot], load: Load = LOAD, server: Sequence[ServerSample] = ()) -> Run:
    return run_of(load, Flown(shots, ["m"], 0.1), server)


def steady(seconds: int, took_ms: float, *, step_ms: int = 10) -> Run:
    """Returns a shot every 10 ms with nearly constant latency, which rises slightly within each second."""
    return run([shot(at, took_ms * (1 + (at % 1000) / 100_000)) for at in range(0, 1000 * seconds, step_ms)])


def result(*runs: Run, load: Load = LOAD) -> Result:
    return Result(load=load, runs=runs)
