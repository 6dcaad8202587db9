"""The result of a run: figures of the whole run, of every second, task and tenant, and the server's statistics.

A result file holds one or several runs of the same load; `compare` and the page read nothing else."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadtest.fleet import Flown, fly
from loadtest.load import Load
from loadtest.report import Summary, summarise
from loadtest.server_watch import ServerSample, ServerWatch, sample_as_json, sample_from_json
from loadtest.shot import Shot
from loadtest.tally import Tally, windows

FORMAT = "loadtest 1"
WATCH_S = 1.0


class BadResult(ValueError):
    """A file that is not a result. The text names the file and the mistake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The figures of one run. Each of `windows` is one second of planned time. Instants of `server` are seconds since
    the start of the run."""

    summary: Summary
    windows: Sequence[Tally]
    tasks: dict[str, Tally]
    tenants: dict[str, Tally]
    server: Sequence[ServerSample]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One or several runs of the same load."""

    load: Load
    runs: Sequence[Run]


Progress = Callable[[Tally, float, ServerSample | None], None]


def take(load: Load, progress: Progress = lambda *_: None) -> tuple[Run, Sequence[Shot]]:
    """Takes one run: other processes send requests while this one reads the server's statistics. Raises what `fly`
    raises."""
    samples: list[ServerSample] = []
    watch: ServerWatch | None = None

    def began(models: Sequence[str]) -> None:
        nonlocal watch
        watch = ServerWatch(load.address, models) if load.wire in ("http-binary", "http-json") else None
        look(0.0)

    def look(at_s: float) -> ServerSample | None:
        sample = watch.sample(at_s) if watch else None
        if sample:
            samples.append(sample)
        return sample

    def on_tally(tally: Tally, at_s: float) -> None:
        due = at_s >= (samples[-1].at_s if samples else 0.0) + WATCH_S
        progress(tally, at_s, look(at_s) if due and samples else None)

    flown = fly(load, on_tally, began)
    if samples:
        look(max(shot.done_ns or 0 for shot in flown.shots) / 1e9 if flown.shots else 0.0)
    return run_of(load, flown, samples), flown.shots


def run_of(load: Load, flown: Flown, samples: Sequence[ServerSample] = ()) -> Run:
    shots, within_ns = flown.shots, load.within_ns
    return Run(
        summary=summarise(shots, within_ns=within_ns, cpu_share=flown.cpu_share, open_loop=not load.users),
        windows=windows(shots, within_ns=within_ns),
        tasks=_by(shots, lambda shot: shot.task, within_ns),
        tenants=_by(shots, lambda shot: shot.tenant, within_ns),
        server=samples,
    )


def _by(shots: Sequence[Shot], key: Callable[[Shot], str], within_ns: int | None) -> dict[str, Tally]:
    tallies: dict[str, Tally] = {}
    for shot in shots:
        if key(shot):
            tallies.setdefault(key(shot), Tally()).add(shot, within_ns)
    return tallies


def write_result(path: Path, result: Result) -> None:
    runs = [
        {
            "summary": asdict(run.summary),
            "windows": [tally.as_json() for tally in run.windows],
            "tasks": {name: tally.as_json() for name, tally in run.tasks.items()},
            "tenants": {name: tally.as_json() for name, tally in run.tenants.items()},
            "server": [sample_as_json(sample) for sample in run.server],
        }
        for run in result.runs
    ]
    document = {"format": FORMAT, "load": result.load.as_json(), "runs": runs}
    path.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")


def why_unread(error: Exception) -> str:
    """Returns the reason why a file could not be read as a result or a sweep."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"it lacks {error}" if isinstance(error, KeyError) else str(error)


def read_result(path: Path) -> Result:
    """Reads a result file. Raises BadResult."""
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
        if document["format"] != FORMAT:
            raise BadResult(f"{path}: expected format {FORMAT!r}, got {document['format']!r}")
        return Result(load=Load.from_json(document["load"]), runs=[_run(run) for run in document["runs"]])
    except BadResult:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadResult(f"{path} is not a result of `loadtest run --json`: {why_unread(error)}") from None


def _run(fields: dict[str, Any]) -> Run:
    return Run(
        summary=Summary(**fields["summary"]),
        windows=[Tally.from_json(tally) for tally in fields["windows"]],
        tasks={name: Tally.from_json(tally) for name, tally in fields["tasks"].items()},
        tenants={name: Tally.from_json(tally) for name, tally in fields["tenants"].items()},
        server=[sample_from_json(sample) for sample in fields["server"]],
    )
