"""Parses the command line. Prints a mistake and exits, as argparse does."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadtest.arrivals import ARRIVALS
from loadtest.distribution import KINDS
from loadtest.fleet import enough
from loadtest.load import Load
from loadtest.loading import load as load_scenario
from loadtest.spec import BadSpec, usage
from loadtest.wires import WIRES

_ARRIVALS = "; ".join(usage(name, function, ("rate", "seconds", "seed")) for name, function in ARRIVALS.items())
_SIZES = "a number, or " + ", ".join(usage(name, function) for name, function in KINDS.items())
_EPILOG = f"arrivals: {_ARRIVALS}. sizes and pauses: {_SIZES}."
Verbs = Any  # the type of argparse's subparsers is private


def read_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Parses the command line. For `run` and `sweep`, the result has a `load`, which is a Load."""
    parser = argparse.ArgumentParser(prog="python -m loadtest", description="Measures a model server under load.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    _run(verbs)
    _sweep(verbs)
    _compare(verbs)
    _check(verbs)
    _page(verbs)
    arguments = parser.parse_args(words)
    if arguments.verb in ("run", "sweep"):
        try:
            arguments.load = _load(arguments)
        except ValueError as error:
            verbs.choices[arguments.verb].error(str(error))
    return arguments


def _run(verbs: Verbs) -> None:
    run = verbs.add_parser(
        "run",
        help="run one load",
        description="Runs one load for some seconds. Exit status: 0 every planned shot was answered, 1 some were not, "
        "2 no request could be sent.",
        epilog=_EPILOG,
    )
    _add_load(run)
    run.add_argument("--repeat", type=int, default=1, help="number of runs of the same load, in one result")
    run.add_argument("--shots", type=Path, help="file for every shot of the last run, one JSON object per line")


def _sweep(verbs: Verbs) -> None:
    sweep = verbs.add_parser(
        "sweep",
        help="find the highest rate at which the objective is met",
        description="Finds the highest rate at which --share of the planned shots is answered within --within-ms. "
        "Doubles --rate until the objective is missed, then bisects. Exit status: 0 found, 1 no rate meets it, 2 no "
        "request could be sent.",
        epilog=_EPILOG,
    )
    _add_load(sweep)
    sweep.add_argument("--share", type=float, default=0.99, help="share of planned shots in time; default %(default)s")
    sweep.add_argument(
        "--repeat", type=int, default=3, help="runs per rate, of which the majority decides; default %(default)s"
    )
    sweep.add_argument("--precision", type=float, default=0.1, help="relative, of the rate; default %(default)s")
    sweep.add_argument("--most", type=float, default=1e6, help="highest requests per second; default %(default)g")


def _compare(verbs: Verbs) -> None:
    compare = verbs.add_parser(
        "compare",
        help="compare two results and test the difference",
        description="Compares two results and tests whether the difference is real (statistically significant): by a "
        "rank test over repeated runs (--repeat 5), else by a bootstrap over seconds. Exit status: 0 the second is not "
        "significantly worse, 1 it is, 2 they cannot be compared.",
    )
    compare.add_argument("first", type=Path, help="a result of `run --json`")
    compare.add_argument("second", type=Path)


def _check(verbs: Verbs) -> None:
    check = verbs.add_parser(
        "check",
        help="judge a result against an objective file",
        description="Judges a result against an objective file (TOML: p99_ms = 50, answered_share = 0.999, "
        "in_time_share, goodput_per_s, throughput_per_s, and [tasks.NAME] or [tenants.NAME]). Exit status: 0 kept, 1 "
        "missed, 2 cannot be judged, for example because the generator was the bottleneck.",
    )
    check.add_argument("result", type=Path, help="a result of `run --json`")
    check.add_argument("objective", type=Path)


def _page(verbs: Verbs) -> None:
    page = verbs.add_parser(
        "page",
        help="write results and sweeps as one HTML page",
        description="Writes results and sweeps as one self-contained HTML page.",
    )
    page.add_argument("files", type=Path, nargs="+", help="results of `run --json` and `sweep --json`")
    page.add_argument("--output", type=Path, default=Path("loadtest.html"), help="default %(default)s")
    page.add_argument("--title", default="Load test", help="of the page")


def _add_load(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", help="http://host:port/v2/models/NAME; without the model if the scenario names it")
    parser.add_argument(
        "--wire", choices=WIRES, default="http-binary", help="default %(default)s; http-raw posts bytes only"
    )
    when = parser.add_argument_group("when (open loop, or closed with --users)")
    when.add_argument("--rate", type=float, help="requests per second")
    when.add_argument("--seconds", type=float)
    when.add_argument("--arrivals", help="default poisson; see below")
    when.add_argument("--users", type=int, default=0, help="number of users of a closed loop, instead of a rate")
    when.add_argument("--think", help="seconds between a user's answer and next request; default 0")
    what = parser.add_argument_group("what (a scenario, or random inputs as the model declares them)")
    what.add_argument("--scenario", type=Path, help=".toml, .py, file.py:NAME, or recorded requests in .jsonl")
    what.add_argument("--rows", help="per request; default 1")
    what.add_argument("--length", help="of variable dimensions; default 16")
    what.add_argument("--words", help="of texts; default lognormal(12, 0.6)")
    what.add_argument("--side", help="makes BYTES photographs with this many pixels on the longer side")
    what.add_argument("--deadline-ms", type=float, help="sent with each request; later answers are not in time")
    what.add_argument("--priority", type=int, help="1 is the most urgent")
    what.add_argument("--tenant-header", default="x-tenant", help="header of a tenant; default %(default)s")
    what.add_argument("--seed", type=int, default=0, help="of the schedule and the inputs")
    how = parser.add_argument_group("how")
    how.add_argument("--within-ms", type=float, help="later answers are not in time and do not count as goodput")
    how.add_argument("--in-flight", type=int, default=256, help="the most at once; further shots are not sent")
    how.add_argument("--timeout", type=float, default=10.0, help="seconds until a shot is aborted")
    how.add_argument("--processes", type=int, default=0, help="of the generator; default: as many as the rate needs")
    how.add_argument("--warm-up", type=float, default=0.0, help="seconds of the same load before, not counted")
    how.add_argument("--json", type=Path, help="file for the result")
    how.add_argument("--html", type=Path, help="file for a page with charts")


def _load(arguments: argparse.Namespace) -> Load:
    """Builds the Load from the command line; defaults come from the scenario. Raises BadSpec."""
    sizes = {name: getattr(arguments, name) for name in ("rows", "length", "words", "side")}
    one: dict[str, Any] = {**sizes, "deadline_ms": arguments.deadline_ms, "priority": arguments.priority}
    one = {name: value for name, value in one.items() if value is not None}
    if arguments.scenario and one:
        raise BadSpec(f"--{next(iter(one)).replace('_', '-')}: the scenario sets this; remove one of the two options")
    if arguments.repeat < 1:
        raise BadSpec(f"--repeat: must be positive, got {arguments.repeat}")
    if arguments.verb == "sweep" and (arguments.within_ms is None or arguments.users):
        raise BadSpec("--within-ms: required for a sweep, with a first --rate; a sweep does not take --users")
    defaults = load_scenario(arguments.scenario) if arguments.scenario else None
    rate = (
        arguments.rate if arguments.rate is not None else (defaults.rate if defaults and not arguments.users else 0.0)
    )
    return Load(
        url=arguments.url,
        scenario=arguments.scenario or {"tasks": {"fill": one}},
        wire=arguments.wire,
        rate=rate,
        seconds=arguments.seconds if arguments.seconds is not None else (defaults.seconds if defaults else 10.0),
        arrivals=arguments.arrivals or (defaults.arrivals if defaults else "poisson"),
        users=arguments.users,
        think=arguments.think or (defaults.think if defaults else "0"),
        within_ms=arguments.within_ms,
        seed=arguments.seed,
        in_flight=arguments.in_flight,
        timeout_s=arguments.timeout,
        tenant_header=arguments.tenant_header,
        processes=arguments.processes or enough(rate),
    )
