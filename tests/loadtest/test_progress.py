"""The live progress of a run in the terminal."""

from io import StringIO

from rich.console import Console

from loadtest.progress import LiveProgress
from loadtest.server_watch import ServerSample
from loadtest.tally import windows
from tests.loadtest.results import refused, shot


def shown(is_terminal: bool) -> str:
    output = StringIO()
    console = Console(file=output, force_terminal=is_terminal, width=120)
    with LiveProgress(console, seconds=10) as progress:
        (first,) = windows([shot(at, 20) for at in range(0, 1000, 10)])
        progress(first, 1.0, ServerSample(at_s=0.0))
        (second,) = windows([refused(0)])
        progress(
            second, 2.0, ServerSample(at_s=2.0, rows=80, batches=10, queue_ns=4_000_000_000, dropped={"expired": 6})
        )
    return output.getvalue()


def test_rates_quantiles_errors_and_the_servers_queue_are_shown_live() -> None:
    text = shown(is_terminal=True)
    for expected in (
        "planned/s",
        "50",
        "20.0",
        "the queue is full",
        "2.0 waiting, batches of 8.0",
        "dropped: 6 expired",
    ):
        assert expected in text


def test_output_that_is_not_a_terminal_stays_clean() -> None:
    assert shown(is_terminal=False).strip() == ""
