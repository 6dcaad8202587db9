"""The processes that send requests. This process only starts them, gives them a common start time, and receives their
tallies.

`perf_counter_ns` is the machine's monotonic clock, the same in all processes, so their instants can be compared."""

import asyncio
import gc
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from time import perf_counter_ns, process_time_ns

from loadtest import precise
from loadtest.arrivals import SECOND_NS, schedule
from loadtest.distribution import Distribution
from loadtest.load import Load
from loadtest.shooter import load_schedule
from loadtest.shot import Shot
from loadtest.spec import BadSpec
from loadtest.tally import Tally
from loadtest.users import use
from loadtest.wires import NoMetadata
from loadtest.wires.opening import open_wire
from loadtest.workload import prepare

# A shot was measured to cost 35 to 80 µs of CPU, so this rate takes about half a core: `python -m benchmarks.loadtest`.
RATE_PER_PROCESS = 8000.0
_LEAD_NS = 50_000_000  # from now to the start time, until all processes have received it
_REPORT_S = 0.25
OnProgress = Callable[[Tally, float], None]


class GeneratorFailed(Exception):
    """A process of the load generator could not start or ended early; the text gives the reason."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Sent by a process when all its requests are prepared."""

    models: Sequence[str]


@dataclass(frozen=True, slots=True)
class Done:
    """Sent by a process after its last shot."""

    shots: Sequence[Shot]
    cpu_ns: int
    wall_ns: int


@dataclass(frozen=True, slots=True)
class Flown:
    """The shots of all processes. `cpu_share`: the share of a core that the busiest process used during the run."""

    shots: Sequence[Shot]
    models: Sequence[str]
    cpu_share: float


def enough(rate: float) -> int:
    """Returns the number of processes that a rate needs, at most the number of cores."""
    return max(1, min(os.cpu_count() or 1, -(-round(rate) // round(RATE_PER_PROCESS))))


def fly(
    load: Load, on_progress: OnProgress = lambda _tally, _at_s: None, began: Callable[[Sequence[str]], None] = print
) -> Flown:
    """Runs a load and blocks until the last shot is done. Raises GeneratorFailed, BadSpec, NoMetadata.

    began: called with the models when all processes are ready.
    on_progress: called a few times a second with the tally since the last call and the second of the run."""
    spawned = multiprocessing.get_context("spawn")  # a fork would copy locks that the caller's threads hold
    pipes: list[Connection] = []
    processes = []
    try:
        for index in range(load.processes):
            ours, theirs = spawned.Pipe()
            process = spawned.Process(target=_shoot, args=(load, index, theirs), daemon=True)
            process.start()
            theirs.close()  # otherwise the pipe would stay open when the process dies
            processes.append(process)
            pipes.append(ours)
        ready = [_expect(pipe, Ready) for pipe in pipes]
        models = ready[0].models
        began(models)
        start_ns = perf_counter_ns() + _LEAD_NS
        for pipe in pipes:
            pipe.send(start_ns)
        return _listen(pipes, models, start_ns, on_progress)
    finally:
        for process in processes:
            process.terminate()  # no effect on a process that has ended
            process.join()


def _listen(pipes: Sequence[Connection], models: Sequence[str], start_ns: int, on_progress: OnProgress) -> Flown:
    done: list[Done] = []
    flying = list(pipes)
    while flying:
        tally = Tally()
        for pipe in wait(flying, timeout=_REPORT_S):
            assert isinstance(pipe, Connection)
            message = _receive(pipe)
            if isinstance(message, Tally):
                tally.merge(message)
            elif isinstance(message, Done):
                done.append(message)
                flying.remove(pipe)
            else:
                raise message if isinstance(message, Exception) else GeneratorFailed(str(message))
        on_progress(tally, (perf_counter_ns() - start_ns) / SECOND_NS)
    shots = sorted((shot for each in done for shot in each.shots), key=lambda shot: shot.planned_ns)
    return Flown(shots, models, max(each.cpu_ns / max(1, each.wall_ns) for each in done))


def _expect(pipe: Connection, kind: type[Ready]) -> Ready:
    message = _receive(pipe)
    if isinstance(message, Exception):
        raise message
    assert isinstance(message, kind), message
    return message


def _receive(pipe: Connection) -> object:
    try:
        return pipe.recv()
    except EOFError:
        raise GeneratorFailed("a process of the generator ended during the run; its output is above") from None


def _shoot(load: Load, index: int, pipe: Connection) -> None:
    """Runs one process of the generator."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and terminates this process
    try:
        precise.run(_run(load, index, pipe))
    except (BadSpec, NoMetadata, ValueError) as error:
        pipe.send(error)


async def _run(load: Load, index: int, pipe: Connection) -> None:
    scenario, wire = load.read_scenario(), open_wire(load.wire, load.address)
    workload = await prepare(scenario, wire, load.address, seed=load.seed, tenant_header=load.tenant_header)
    dates = () if load.users else schedule(load.arrivals, load.rate, load.seconds, load.seed)
    pipe.send(Ready(sorted({task.model or scenario.model or load.address.model for task in scenario.tasks()})))
    start_ns: int = await asyncio.to_thread(pipe.recv)
    tally = Tally()

    def see(shot: Shot) -> None:
        tally.add(shot, load.within_ns)

    async def report() -> None:
        nonlocal tally
        while True:
            await asyncio.sleep(_REPORT_S)
            pipe.send(tally)
            tally = Tally()

    gc.collect()
    gc.freeze()  # a collection of all requests and shots would be a pause that looks like latency of the server
    gc.disable()
    reporting = asyncio.create_task(report())
    cpu_ns, wall_ns = process_time_ns(), perf_counter_ns()
    try:
        if load.users:
            shots = await use(
                wire, workload, users=range(index, load.users, load.processes), start_ns=start_ns, seen=see,
                think=Distribution.parse(load.think, "think"), seconds=load.seconds, seed=load.seed,
                timeout_s=load.timeout_s,
            )  # fmt: skip
        else:
            shots = await load_schedule(
                wire, workload, dates, seed=load.seed, share=(index, load.processes), start_ns=start_ns, seen=see,
                in_flight=max(1, load.in_flight // load.processes), timeout_s=load.timeout_s,
            )  # fmt: skip
        done = Done(shots, process_time_ns() - cpu_ns, perf_counter_ns() - wall_ns)
    finally:
        reporting.cancel()
        await wire.close()
    pipe.send(tally)
    pipe.send(done)
