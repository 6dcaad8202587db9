"""`python -m loadtest`: puts load on a server of the Open Inference Protocol and reports latency and goodput."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console

from loadtest import comparison, objective, sweep
from loadtest.fleet import GeneratorFailed, enough
from loadtest.load import Load
from loadtest.options import read_arguments
from loadtest.page import page
from loadtest.progress import LiveProgress
from loadtest.report import group_text, text
from loadtest.result import BadResult, Result, Run, read_result, take, write_result
from loadtest.shot import Shot, write_shots
from loadtest.spec import BadSpec
from loadtest.wires import NoMetadata


def run(arguments: argparse.Namespace) -> int:
    """Runs a load. Returns 0 if every planned shot was answered, else 1."""
    load, runs = arguments.load, []
    warm_up(load, arguments.warm_up)
    for number in range(arguments.repeat):
        taken, shots = watched(replace(load, seed=load.seed + number))
        runs.append(taken)
        of = f" (run {number + 1} of {arguments.repeat})" if arguments.repeat > 1 else ""
        print(f"{load.url}{of}: {load.title}\n{text(taken.summary)}")
        for title, groups in (("task", taken.tasks), ("tenant", taken.tenants)):
            if table := group_text(title, groups):
                print(f"\n{table}")
    if arguments.shots:
        write_shots(arguments.shots, shots)
    if arguments.json:
        write_result(arguments.json, Result(load=load, runs=runs))
    if arguments.html:
        arguments.html.write_text(page("Load test", [Result(load=load, runs=runs)]), encoding="utf-8")
    return 0 if all(each.summary.answered == each.summary.planned for each in runs) else 1


def sweep_rates(arguments: argparse.Namespace) -> int:
    """Searches the highest rate at which the objective is met. Returns 0 if there is one, else 1."""

    def take_quietly(load: Load) -> Run:
        return watched(replace(load, processes=max(load.processes, enough(load.rate))))[0]

    def print_point(point: sweep.Point) -> None:
        print(f"{point.rate:8g} per s: {point.in_time_share:7.2%} in time, p99 {point.p99_ms:.2f} ms", flush=True)

    warm_up(arguments.load, arguments.warm_up)
    done = sweep.sweep(
        arguments.load, take_quietly, share=arguments.share, repeat=arguments.repeat, precision=arguments.precision,
        most=arguments.most, on_progress=print_point,
    )  # fmt: skip
    print(f"\n{sweep.text(done)}")
    if arguments.json:
        sweep.write_sweep(arguments.json, done)
    if arguments.html:
        arguments.html.write_text(page("Load test", [done]), encoding="utf-8")
    return 0 if done.best is not None else 1


def compare(arguments: argparse.Namespace) -> int:
    """Compares two results. Returns 1 if the second is significantly worse, else 0."""
    compared = comparison.compare(read_result(arguments.first), read_result(arguments.second))
    print(comparison.text(compared))
    return 1 if compared.headline.verdict == "worse" else 0


def check(arguments: argparse.Namespace) -> int:
    """Checks a result against an objective. Returns 0 if every limit was met, 1 if not, 2 if the generator was the
    bottleneck."""
    result, limits = read_result(arguments.result), objective.read(arguments.objective)
    verdicts = objective.judge(limits, result)
    for verdict in verdicts:
        print(verdict)
    if any(taken.summary.is_generator_limit for taken in result.runs):
        print("the generator was the bottleneck: this result cannot be judged", file=sys.stderr)
        return 2
    return 0 if all(verdict.is_kept for verdict in verdicts) else 1


def write_page(arguments: argparse.Namespace) -> int:
    parts = [sweep.read_any(path) for path in arguments.files]
    arguments.output.write_text(page(arguments.title, parts), encoding="utf-8")
    print(f"written: {arguments.output}")
    return 0


def watched(load: Load) -> tuple[Run, Sequence[Shot]]:
    with LiveProgress(Console(), load.seconds) as progress:
        return take(load, progress)


def warm_up(load: Load, seconds: float) -> None:
    if seconds > 0:
        take(replace(load, seconds=seconds))


VERBS = {"run": run, "sweep": sweep_rates, "compare": compare, "check": check, "page": write_page}


def main(words: Sequence[str]) -> int:
    """Runs one command. Returns its exit status, 2 if no request could be sent or no result judged."""
    arguments = read_arguments(words)
    try:
        return VERBS[arguments.verb](arguments)
    except (BadSpec, BadResult, NoMetadata, GeneratorFailed, ValueError, OSError) as error:
        print(f"loadtest {arguments.verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
