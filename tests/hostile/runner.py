"""Sends the hostile inputs of one kind beside the bystanders. Judges answers, processes, memory, event loops and
bystanders."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.hostile.bystanders import Bystanders, Seen, clients
from tests.hostile.files import HostileFile
from tests.hostile.inputs import MIB, Answer, Hostile
from tests.hostile.places import Memory, Place, memory_bytes, memory_of, settled

ANSWER_S = 10.0  # for one input, until it has been answered or the server has timed it out
KIND_S = 60.0  # for all inputs of one kind; those that are left then are failures
BASELINE_S = 3.0
WATCH_S = 60.0
STALL_MS = 100.0
SETTLE_S = 20.0  # until memory is returned: processes check every 2 s whether to trim their heaps
MEMORY_SHARE = 0.10
# The memory that a kind may take meanwhile, for kinds without large inputs; no bound for the others.
PEAK_ROOM = {"frames": 256 * MIB, "heads": 256 * MIB}
Say = Callable[[str], None]


@dataclass(slots=True)
class Result:
    """The result of one input: its answer, and for how long the event loop was blocked meanwhile. failures: the faults
    found."""

    name: str
    answer: Answer
    seconds: float
    stall_ms: float = 0.0
    own_stall_ms: float = 0.0
    failures: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """The result of one kind. failures: faults of the kind as a whole; those of an input are in its result. baseline_*:
    measured without inputs. memory_mib: of each process before and after, and of all together with the peak; before
    means before the first kind."""

    kind: str
    inputs: list[Result] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0
    baseline_stall_ms: float = 0.0
    baseline_own_stall_ms: float = 0.0
    afterwards_own_stall_ms: float = 0.0
    memory_mib: dict[str, dict[str, float]] = field(default_factory=dict)
    bystanders: Seen = field(default_factory=Seen)

    def all_failures(self) -> list[str]:
        return [*self.failures, *(f"{result.name}: {one}" for result in self.inputs for one in result.failures)]


def run_kind(
    kind: str, inputs: Sequence[Hostile], place: Place, bystanders: Bystanders, at_rest: Memory, say: Say
) -> Report:
    """Sends all inputs of a kind and returns the report. at_rest: the memory of each process before the first kind."""
    report = Report(kind)
    began_s = time.monotonic()
    bystanders.begin()
    place.look(WATCH_S)
    time.sleep(BASELINE_S)
    replicas = place.look(WATCH_S)
    report.baseline_stall_ms, report.baseline_own_stall_ms = stalls(replicas)
    pids = {replica["pid"] for replica in replicas}
    with peak(sorted(pids)) as most:
        for hostile in inputs:
            if time.monotonic() > began_s + KIND_S:
                left = len(inputs) - len(report.inputs)
                report.failures.append(f"{left} inputs were not sent: those before took {KIND_S:g} s")
                break
            result, now = _send(hostile, place)
            if now != pids:
                result.failures.append("a replica has ended and was replaced")
                place.find_doors()
            pids = now
            report.inputs.append(result)
            for failure in result.failures:
                say(f"  {kind}: {result.name}: {failure}")
    report.bystanders = bystanders.end()
    after = settled(place, bounds(at_rest), SETTLE_S)
    report.afterwards_own_stall_ms = stalls(after)[1]
    report.memory_mib = memory_table(at_rest, memory_of(after), max(most, default=0))
    report.seconds = time.monotonic() - began_s
    judge(report, sorted({str(replica["balance"]) for replica in after}))
    return report


def bounds(at_rest: Memory) -> Memory:
    """Returns the memory that each process may hold afterwards."""
    return {name: int(held * (1 + MEMORY_SHARE)) for name, held in at_rest.items()}


def memory_table(before: Memory, after: Memory, peak_bytes: int) -> dict[str, dict[str, float]]:
    """Returns `memory_mib` of a `Report`."""
    result = {name: {"before": before[name] / MIB, "after": after[name] / MIB} for name in sorted(before)}
    together = {"before": sum(before.values()) / MIB, "peak": peak_bytes / MIB, "after": sum(after.values()) / MIB}
    return {"all together": together} | result


def run_files(kind: str, inputs: Sequence[HostileFile], say: Say) -> Report:
    report = Report(kind)
    began_s = time.monotonic()
    for hostile in inputs:
        one_s = time.monotonic()
        result = Result(hostile.name, hostile.answer(), time.monotonic() - one_s)
        judge_answer(result, hostile.right)
        report.inputs.append(result)
        for failure in result.failures:
            say(f"  {kind}: {result.name}: {failure}")
    report.seconds = time.monotonic() - began_s
    return report


def stalls(replicas: list[dict[str, object]]) -> tuple[float, float]:
    """Returns the longest stall of all replicas in ms, and the longest part of a stall in which the process used the
    CPU."""
    loops: list[dict[str, float]] = [replica["loop"] for replica in replicas]  # type: ignore[misc]
    return max(one["longest_stall_ms"] for one in loops), max(one["longest_own_stall_ms"] for one in loops)


def _send(hostile: Hostile, place: Place) -> tuple[Result, set[int]]:
    """Sends the input. Returns the result and the process ids of the replicas afterwards."""
    began_s = time.monotonic()
    answer = asyncio.run(answer_of(hostile, place))
    result = Result(hostile.name, answer, time.monotonic() - began_s)
    judge_answer(result, hostile.right)
    replicas = place.look(WATCH_S)
    result.stall_ms, result.own_stall_ms = stalls(replicas)
    if result.own_stall_ms > STALL_MS:
        result.failures.append(f"the event loop stood still for {result.own_stall_ms:.0f} ms ({answer.what})")
    return result, {replica["pid"] for replica in replicas}


async def answer_of(hostile: Hostile, place: Place) -> Answer:
    try:
        async with asyncio.timeout(ANSWER_S):
            return await hostile.send(place.doors)
    except TimeoutError:
        return Answer(f"no answer within {ANSWER_S:g} s")
    except OSError as error:
        return Answer(f"no connection: {type(error).__name__}", str(error))


def judge_answer(result: Result, right: frozenset[str]) -> None:
    """Adds a failure if the answer is not one of the right ones."""
    if result.answer.what not in right:
        expected = ", ".join(sorted(right))
        result.failures.append(f"{result.answer.what}: {result.answer.text[:160]!r}, not one of {expected[:120]}")


def judge(report: Report, balances: list[str]) -> None:
    """Adds the failures of the kind as a whole. balances: the states of the ledgers."""
    for name, memory in report.memory_mib.items():
        if memory["after"] > memory["before"] * (1 + MEMORY_SHARE):
            report.failures.append(
                f"memory of {name}: {memory['before']:.0f} MiB before, {memory['after']:.0f} MiB afterwards"
            )
    together, room = report.memory_mib["all together"], PEAK_ROOM.get(report.kind)
    if room is not None and together["peak"] > together["before"] * (1 + MEMORY_SHARE) + room / MIB:
        report.failures.append(f"memory: {together['before']:.0f} MiB before, {together['peak']:.0f} MiB meanwhile")
    if report.afterwards_own_stall_ms > STALL_MS:
        report.failures.append(f"afterwards the event loop stood still for {report.afterwards_own_stall_ms:.0f} ms")
    if balances != ["good"]:
        report.failures.append(f"ledgers do not balance: {balances}")
    if report.bystanders.wrong:
        report.failures.append(f"bystanders were answered wrongly: {dict(report.bystanders.wrong)}")
    if silent := clients() - report.bystanders.right.keys():
        report.failures.append(f"bystanders without any answer: {sorted(silent)}")


@contextmanager
def peak(pids: list[int]) -> Iterator[list[int]]:
    """Yields a list to which the memory of these processes together, in bytes, is added twenty times a second."""
    seen: list[int] = []
    over = threading.Event()

    def sample() -> None:
        while not over.wait(0.05):
            seen.append(memory_bytes(pids))

    sampling = threading.Thread(target=sample)
    sampling.start()
    try:
        yield seen
    finally:
        over.set()
        sampling.join()
