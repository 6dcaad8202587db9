"""Hostile files that the server loads from disk: each is loaded in a process of its own, with bounded time and
memory."""

import multiprocessing
import os
import resource
import signal
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from tests.hostile.inputs import MIB, Answer

CPU_S = 5  # the most CPU time until it is loaded or rejected
PATIENCE_S = 60.0  # wall time, on a busy machine
MEMORY_MIB = 512
Load = Callable[[Path], object]
Make = Callable[[Path], Path]


@dataclass(frozen=True, slots=True)
class HostileFile:
    """make: writes the file into a folder and returns its path. load: loads it, a function of a module. right: the
    right answers: "loaded", "clear" for an error that names the file, or "unclear" for one that does not."""

    name: str
    kind: str
    make: Make
    load: Load
    right: frozenset[str]

    def answer(self) -> Answer:
        """Loads the file in another process and returns the result."""
        with tempfile.TemporaryDirectory() as folder:
            path = self.make(Path(folder))
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([__name__, "models.weights", "serving.config"])
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_load, args=(self.load, path, theirs))
            process.start()
            theirs.close()
            try:
                result = ours.recv() if ours.poll(PATIENCE_S) else Answer(f"not loaded within {PATIENCE_S:g} s")
            except EOFError:
                process.join()
                slow = process.exitcode == -signal.SIGXCPU
                result = Answer(f"took more than {CPU_S} s" if slow else f"process ended: {process.exitcode}")
            finally:
                process.kill()
                process.join()
                ours.close()
            run = Path(folder, "run")
            return Answer("code was run", result.text) if run.exists() else result


def _load(load: Load, path: Path, answers: Connection) -> None:
    os.environ["HEADWAY_CACHE"] = str(path.parent / "cache")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    warnings.simplefilter("ignore")
    before = _status_bytes("VmHWM")
    # Unbounded growth ends as a MemoryError of this process, before the machine is out of memory.
    most = _status_bytes("VmSize") + 2 * MEMORY_MIB * MIB
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))
    try:
        load(path)
        answer = Answer("loaded")
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        answer = Answer("clear" if path.name in text and len(text) < 20_000 else "unclear", text[:300])
    except BaseException as error:  # such as Rust's panics
        answer = Answer(f"ended by {type(error).__name__}", str(error)[:300])
    grown = _status_bytes("VmHWM") - before
    answers.send(Answer(f"took {grown >> 20} MiB", answer.text) if grown > MEMORY_MIB * MIB else answer)


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def written(name: str, make: Callable[[], bytes]) -> Make:
    def write(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(make())
        return path

    return write
