"""`python -m loadtest`: load on anything that speaks the Open Inference Protocol, and what came of it."""

import sys
from collections.abc import Sequence

from rich.console import Console

from loadtest.fleet import CannotShoot
from loadtest.options import Parsed, read_arguments
from loadtest.progress import LiveProgress
from loadtest.report import group_text, text
from loadtest.result import BadResult, Result, take, write_result
from loadtest.shot import write_shots
from loadtest.spec import BadSpec
from loadtest.wires import NoMetadata


def run(arguments: Parsed) -> int:
    """0 if every planned shot was answered, 1 if not."""
    load, runs = arguments.load, []
    for number in range(arguments.repeat):
        with LiveProgress(Console(), load.seconds) as progress:
            taken, shots = take(load, progress)
        runs.append(taken)
        of = f" (run {number + 1} of {arguments.repeat})" if arguments.repeat > 1 else ""
        print(f"{load.url}{of}: {load.title}\n{text(taken.summary)}")
        for title, groups in (("task", taken.tasks), ("tenant", taken.tenants)):
            if told := group_text(title, groups):
                print(f"\n{told}")
        if arguments.shots:
            write_shots(arguments.shots, shots)  # of the last run
    if arguments.json:
        write_result(arguments.json, Result(load=load, runs=runs))
    return 0 if all(each.summary.answered == each.summary.planned for each in runs) else 1


VERBS = {"run": run}


def main(words: Sequence[str]) -> int:
    """2 where nothing could be asked or judged."""
    arguments = read_arguments(words)
    try:
        return VERBS[arguments.verb](arguments)
    except (BadSpec, BadResult, NoMetadata, CannotShoot, ValueError, OSError) as error:
        print(f"loadtest {arguments.verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
