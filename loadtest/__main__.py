"""`python -m loadtest run URL --rate 200 --seconds 10`: an open-loop load on one model and what came of it."""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from loadtest.arrivals import ARRIVALS
from loadtest.payloads import inputs_of, make_payloads
from loadtest.report import summarise, text
from loadtest.shooter import shoot
from loadtest.shot import Shot, write_shots
from loadtest.wires.http import BadAnswer, ConnectionLost, Target, connect
from serving.protocol.messages import TensorDescription

_METADATA_S = 10.0


class NoMetadata(Exception):
    """The model did not say what it takes."""


def read_arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest", description=__doc__)
    run = parser.add_subparsers(dest="verb", required=True).add_parser("run", help="one rate for some seconds")
    run.add_argument("url", help="http://host:port/v2/models/NAME, with or without /infer")
    run.add_argument("--rate", type=float, required=True, help="requests per second")
    run.add_argument("--seconds", type=float, default=10.0)
    run.add_argument("--arrivals", choices=sorted(ARRIVALS), default="poisson")
    run.add_argument("--seed", type=int, default=0, help="of the schedule and the inputs")
    run.add_argument("--rows", type=int, default=1, help="per request")
    run.add_argument("--length", type=int, default=16, help="of variable dimensions")
    run.add_argument("--connections", type=int, default=256, help="at most; a shot that finds none is not sent")
    run.add_argument("--timeout", type=float, default=10.0, help="seconds until a shot is given up")
    run.add_argument("--json", type=Path, help="write the summary there")
    run.add_argument("--shots", type=Path, help="write every shot there, one JSON object a line")
    arguments = parser.parse_args(words)
    if arguments.rate <= 0 or arguments.seconds <= 0:
        parser.error("--rate and --seconds must be positive")
    arguments.url = arguments.url.rstrip("/").removesuffix("/infer")
    return arguments


async def run(arguments: argparse.Namespace) -> list[Shot]:
    schedule = ARRIVALS[arguments.arrivals](arguments.rate, arguments.seconds, arguments.seed)
    inputs = await _inputs(arguments.url)
    payloads = make_payloads(inputs, rows=arguments.rows, length=arguments.length, seed=arguments.seed)
    return await shoot(
        f"{arguments.url}/infer",
        schedule,
        payloads,
        connections=arguments.connections,
        timeout_s=arguments.timeout,
    )


async def _inputs(url: str) -> list[TensorDescription]:
    target = Target.parse(url)
    try:
        async with asyncio.timeout(_METADATA_S):
            connection = await connect(target)
            answer = await connection.exchange(target.request(b"", {}, method="GET"))
    except (ConnectionLost, BadAnswer, TimeoutError) as error:
        raise NoMetadata(f"{url} does not answer: {error or 'timed out'}") from error
    connection.close()
    if answer.status != 200:
        raise NoMetadata(f"{url} answers {answer.status}: {answer.body[:200].decode(errors='replace')}")
    try:
        return inputs_of(json.loads(answer.body))
    except (KeyError, TypeError, ValueError) as error:
        raise NoMetadata(f"{url} does not describe a model's inputs: {error!r}") from error


def main(words: Sequence[str]) -> int:
    """0 if every planned shot was answered, 1 if not, 2 if nothing could be asked."""
    arguments = read_arguments(words)
    try:
        shots = asyncio.run(run(arguments))
    except (NoMetadata, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    summary = summarise(shots)
    asked = f"{arguments.arrivals}, {arguments.rate:g} per second for {arguments.seconds:g} s, seed {arguments.seed}"
    print(f"{arguments.url}: {asked}\n{text(summary)}")
    if arguments.shots:
        write_shots(arguments.shots, shots)
    if arguments.json:
        arguments.json.write_text(json.dumps({"asked": asked, **summary.as_json()}, indent=2) + "\n")
    return 0 if summary.answered == summary.planned else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
