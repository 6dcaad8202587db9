"""Formats the rows of a run as a table of ratios, in Markdown and JSON, and lists where Headway loses. Pure
functions."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from benchmarks.peers.sample import Row

# A smaller difference is noise on a shared machine.
NOISE = 0.05
# If other processes use more than this of a core, they affect the throughput.
DISTURBED_CORES = 0.2
_WORKS = {
    "noop": "No-op model: only the server's own cost",
    "mlp": "MLP, 1024 wide, 6 hidden layers, one torch thread: batching pays",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The results and the conditions of a run."""

    rows: Sequence[Row]
    titles: Mapping[str, str]  # by peer
    offline: Mapping[int, float]  # rows per second by batch size; empty if not measured
    connections: int  # each sends one row at a time, so no batch is larger than this
    missing: Mapping[str, str]  # the reason, by peer that did not take part
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    commit: str
    command: str
    date: str
    headway: str = "headway"
    one_by_one: str = "headway-one-by-one"

    @property
    def reachable(self) -> tuple[int, float] | None:
        """The (batch, rows per second) of the best offline batch that this many connections can fill."""
        within = {batch: rows for batch, rows in self.offline.items() if batch <= self.connections}
        return max(within.items(), key=lambda item: item[1], default=None)


def ratio(value: float, base: float | None) -> str:
    """Formats the value as a multiple of the base; empty without a base."""
    return "" if not base else f"{value / base:.2f}×"


def markdown(run: Run) -> str:
    parts = ["# First number: Headway and its peers", _circumstances(run), disturbances(run)]
    works = [work for work in _WORKS if any(row.work == work for row in run.rows)]
    for work in works:
        parts += [f"## {_WORKS[work]}", _table(run, work)]
        if work == "mlp":
            parts.append(_batching(run))
        parts += ["CPU per process, µs per request:", _processes(run, work)]
    parts += ["## Where Headway loses", "\n".join(f"- {line}" for line in losses(run))]
    if run.missing:
        parts += ["## Not measured", "\n".join(f"- {run.titles[peer]}: {why}" for peer, why in run.missing.items())]
    return "\n\n".join(part for part in parts if part) + "\n"


def _circumstances(run: Run) -> str:
    facts = [f"{name}: {value}" for name, value in {**run.machine, **run.versions}.items()]
    rounds = max((row.rounds for row in run.rows), default=0)
    return (
        f"{run.date}, commit {run.commit}. {'; '.join(facts)}.\n\n    {run.command}\n\n"
        f"Rounds: {rounds}, with medians shown; connections: {run.connections}. Every round starts each server again, "
        "one at a time, so that slow phases of the machine affect all of them. CPU is user and system time of all "
        "processes of the server per answered request, with the range over the rounds. “× Headway” is the peer's "
        "number divided by Headway's. Compare ratios within one run; absolute numbers depend on this machine."
    )


def disturbances(run: Run) -> str:
    """Warns if other work on the machine affected the numbers; empty if not."""
    disturbed = [row for row in run.rows if row.others_cores > DISTURBED_CORES]
    if not disturbed:
        return ""
    worst = max(row.others_cores for row in disturbed)
    return (
        f"**Disturbed:** for {len(disturbed)} of {len(run.rows)} rows other processes used more than {DISTURBED_CORES} "
        f"of a core (up to {worst:.2f}), and not equally for all. Repeat this run on a quiet machine before quoting it."
    )


def _table(run: Run, work: str) -> str:
    rows = [row for row in run.rows if row.work == work]
    base = _find(run, work, run.headway)
    best = run.reachable[1] if work == "mlp" and run.reachable else 0.0
    head = ["server", "CPU µs/request", "× Headway", "requests/s", "× Headway", "p50 ms", "p99 ms", "failed"]
    head += ["of offline"] if best else []
    head += ["generator, cores", "HAProxy, cores", "others, cores"]
    lines = []
    for row in sorted(rows, key=lambda row: row.cpu_us):
        cells = [
            run.titles[row.peer] + (" (wrong answer!)" if row.right is False else ""),
            f"{row.cpu_us:.0f} ({row.cpu_us_low:.0f}–{row.cpu_us_high:.0f})",
            ratio(row.cpu_us, base.cpu_us if base else None),
            f"{row.per_second:.0f}",
            ratio(row.per_second, base.per_second if base else None),
            f"{row.p50_ms:.1f}",
            f"{row.p99_ms:.1f}",
            str(row.failed),
        ]
        cells += [f"{row.per_second / best:.0%}"] if best else []
        cells += [f"{row.generator_cores:.2f}", f"{row.haproxy_cores:.2f}", f"{row.others_cores:.2f}"]
        lines.append(cells)
    return grid(head, lines)


def _batching(run: Run) -> str:
    sentences = []
    ours, single = _find(run, "mlp", run.headway), _find(run, "mlp", run.one_by_one)
    if run.reachable:
        batch, best = run.reachable
        listed = ", ".join(f"{size}: {rows:.0f}" for size, rows in run.offline.items())
        sentences.append(
            f"Offline (without a server), rows/s by batch size: {listed}. “Of offline” is the share of the best of "
            f"these that {run.connections} connections can fill: {best:.0f}/s at {batch}."
        )
        if ours:
            sentences.append(
                f"Headway serves {ours.per_second / best:.0%} of it. Meanwhile the load generator uses "
                f"{ours.generator_cores:.2f} of a core and HAProxy {ours.haproxy_cores:.2f}; neither runs beside the "
                "offline loop."
            )
    if ours and single:
        gain = ours.per_second / single.per_second
        sentences.append(f"Batching gains {gain:.1f}× over the same server with batches of one.")
    return " ".join(sentences)


def _processes(run: Run, work: str) -> str:
    lines = []
    for row in run.rows:
        if row.work == work:
            shown = ", ".join(f"{name} {us:.0f}" for name, us in row.cpu_us_by_process.items() if us >= 1)
            lines.append(f"- {run.titles[row.peer]}: {shown}")
    return "\n".join(lines)


def losses(run: Run) -> list[str]:
    """Returns every number in which a peer is better than Headway by more than noise."""
    said = []
    for row in run.rows:
        base = _find(run, row.work, run.headway)
        if base is None or row.peer in (run.headway, run.one_by_one):
            continue
        title = run.titles[row.peer]
        if row.cpu_us < base.cpu_us * (1 - NOISE):
            said.append(f"{row.work}, CPU per request: {title} needs {row.cpu_us / base.cpu_us:.2f}× Headway's.")
        if row.per_second > base.per_second * (1 + NOISE):
            said.append(f"{row.work}, throughput: {title} serves {row.per_second / base.per_second:.2f}× Headway's.")
        if row.p99_ms < base.p99_ms * (1 - NOISE):
            said.append(f"{row.work}, p99 at full load: {title} has {row.p99_ms:.1f} ms, Headway {base.p99_ms:.1f} ms.")
    if not any(row.peer == run.headway for row in run.rows):
        return ["Headway itself was not measured in this run."]
    return said or ["Nowhere in this run by more than 5 %."]


def as_json(run: Run) -> dict[str, object]:
    """Converts the run to JSON; ratios are the peer's number divided by Headway's."""
    document = asdict(run)
    for row, plain in zip(run.rows, document["rows"], strict=True):
        base = _find(run, row.work, run.headway)
        plain["cpu_ratio"] = base and row.cpu_us / base.cpu_us
        plain["throughput_ratio"] = base and row.per_second / base.per_second
    return {**document, "losses": losses(run)}


def _find(run: Run, work: str, peer: str) -> Row | None:
    return next((row for row in run.rows if (row.work, row.peer) == (work, peer)), None)


def grid(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in [head, *lines]) for column in range(len(head))]

    def render(cells: Sequence[str]) -> str:
        # The first column is text, aligned left; the others are numbers, aligned right.
        padded = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = "|".join(
        "-" * (width + 2) if column == 0 else "-" * (width + 1) + ":" for column, width in enumerate(widths)
    )
    return "\n".join([render(head), f"|{rule}|", *(render(line) for line in lines)])
