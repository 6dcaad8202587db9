"""The commands `headway release`: begin a release of a version and follow it, hold, resume or abort it, and show it.

The server drives a release, and its log holds what happened. A command that is killed changes nothing: the release goes
on, and the same command attaches to it again.
"""

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from serving.operate.asking import ServerRefused, address_of, asked, failures_printed
from serving.operate.following import HELD, Follower, lines_of
from serving.operate.key_changes import user
from serving.operate.moments import span_s
from serving.operate.printing import fail, mistake, say
from serving.operate.processes import StopSignal
from serving.release.plan import BadPlan, steps_of

PATIENCE_S = 15.0  # of one request
EVERY_S = 1.0
LONGEST_SILENCE_S = 600  # of a server, until the command gives up; the release does not
STARTING_S = 60.0  # for which a front that answers 503 may be starting again

app = typer.Typer(
    name="release",
    no_args_is_help=True,
    help="Let a version take over the traffic of its model step by step. Each step is judged by errors, latency and, "
    "if asked for, by a value that clients send back. Exit codes: 0 promoted, 3 rolled back or aborted, 4 held, 1 the "
    "server refused or does not answer, 2 a mistake in the command line.",
)
out = Console(soft_wrap=True)

Model = Annotated[str, typer.Argument(metavar="MODEL", help="The name of the model.")]
Url = Annotated[str, typer.Option(envvar="HEADWAY_URL", help="The address of the server.")]
Key = Annotated[
    str | None, typer.Option(envvar="HEADWAY_KEY", help="A key with the scope `release`, or the admin token.")
]
Why = Annotated[str, typer.Option(help="The reason, for the history.")]
By = Annotated[
    str | None, typer.Option(help="Who you are, for the history of a server that asks for no key. Unset: your login.")
]
Every = Annotated[float, typer.Option("--every", min=0.05, help="Seconds between two looks at the server.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs, one line for each change.")]
LOCAL = "http://127.0.0.1:8000"


@app.command()
def run(
    version: Annotated[
        str,
        typer.Argument(metavar="MODEL@VERSION", help="What to release: ranker@v5, ranker@5, or a hash's beginning."),
    ],
    steps: Annotated[str, typer.Option(help="The shares of its steps, in percent of the requests.")] = "5,25,50,100",
    soak: Annotated[str, typer.Option(help="The shortest time of a step: 30s, 5m, 1h.")] = "1m",
    deadline: Annotated[str, typer.Option(help="A step that is not decided by then is held.")] = "1h",
    requests: Annotated[int, typer.Option(min=1, help="How many the version has to compute in each step.")] = 100,
    errors: Annotated[str, typer.Option(help="The part of its requests that may fail.")] = "5%",
    slower: Annotated[float, typer.Option(help="How many times the stable version's p95 it may take.")] = 2.0,
    business: Annotated[
        float | None,
        typer.Option(
            help="Also judge the values that clients send back: how much lower their mean may be than the stable "
            "version's, such as 0.02. Unset: no values are asked for."
        ),
    ] = None,
    shadow: Annotated[
        int, typer.Option(min=0, help="How many recorded requests are replayed to both versions first; 0 for none.")
    ] = 200,
    agreement: Annotated[
        str | None, typer.Option(help="The part of them that must have the same answer: 95%. Unset: only told.")
    ] = None,
    smoke: Annotated[bool, typer.Option(help="Send the model's example to the version first.")] = True,
    again: Annotated[bool, typer.Option("--again", help="Also if its latest release did not succeed.")] = False,
    follow: Annotated[bool, typer.Option(help="Wait until it ends or is held.")] = True,
    every_s: Every = EVERY_S,
    why: Why = "",
    by: By = None,
    url: Url = LOCAL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Release MODEL@VERSION and follow it until it is promoted, rolled back or held. Attaches to one that runs."""
    model, _, number = version.partition("@")
    if not model or not number:
        mistake("MODEL@VERSION: write the model and its version, as in ranker@v5")
    plan: dict[str, Any] = {
        "soak_s": _span("--soak", soak),
        "deadline_s": _span("--deadline", deadline),
        "requests": requests,
        "errors": _part("--errors", errors),
        "slower": slower,
        "business": business,
        "shadow": shadow,
        "smoke": smoke,
        "agreement": None if agreement is None else _part("--agreement", agreement),
    }
    try:
        plan["shares"] = list(steps_of(steps))
    except BadPlan as error:
        mistake(f"--steps: {error.text}")
    server = _Server(url, key, model)
    told = server.told()
    running = told["release"]
    wanted = number.removeprefix("v")
    if running is not None and running["exit"] in (None, HELD) and running["version"] == wanted:
        _say(
            f"attached to the release of {model}@v{wanted}, which {running['by'].removeprefix('user:')} began", as_json
        )
    elif told["route"]["stable"] == wanted and told["route"]["candidate"] is None:
        _say(f"{model}@v{wanted} is stable already", as_json)
        return
    else:
        if running is not None and running["exit"] == 3 and running["version"] == wanted and not again:
            _say(
                f"the latest release of {model}@v{wanted} was {running['phase']}: {running['why']}\n"
                "Use --again to try once more.",
                as_json,
            )
            raise typer.Exit(3)
        told = server.ask("", {"version": number, "again": again, "why": why, **plan}, by)
    if follow:
        _follow(server, told, every_s, as_json)
    elif as_json:
        typer.echo(json.dumps(told))


@app.command()
def status(model: Model, url: Url = LOCAL, key: Key = None, as_json: AsJson = False) -> None:
    """Show the running release of MODEL, or the latest one. The exit code is that of its outcome, 0 while it runs."""
    told = _Server(url, key, model).told()
    release = told["release"]
    if as_json:
        typer.echo(json.dumps(told))
    elif release is None:
        typer.echo(f"{model}: no release yet; v{told['route']['stable']} answers")
    else:
        for line in lines_of(told):
            typer.echo(line)
    raise typer.Exit((release or {}).get("exit") or 0)


@app.command()
def watch(model: Model, every_s: Every = EVERY_S, url: Url = LOCAL, key: Key = None, as_json: AsJson = False) -> None:
    """Follow the running release of MODEL until it ends or is held."""
    server = _Server(url, key, model)
    told = server.told()
    if told["release"] is None:
        fail(f"no release of {model} has begun")
    _follow(server, told, every_s, as_json)


@app.command()
def hold(
    model: Model, why: Why = "", by: By = None, url: Url = LOCAL, key: Key = None, as_json: AsJson = False
) -> None:
    """Keep the shares of the running release of MODEL as they are, until it is resumed or aborted."""
    _changed("hold", model, why, by, url, key, as_json)


@app.command()
def resume(
    model: Model, why: Why = "", by: By = None, url: Url = LOCAL, key: Key = None, as_json: AsJson = False
) -> None:
    """Let a held release of MODEL go on. The counts of its step begin anew."""
    _changed("resume", model, why, by, url, key, as_json)


@app.command()
def abort(
    model: Model, why: Why = "", by: By = None, url: Url = LOCAL, key: Key = None, as_json: AsJson = False
) -> None:
    """End the running release of MODEL. The stable version has all requests within two seconds."""
    _changed("abort", model, why, by, url, key, as_json)


def _changed(what: str, model: str, why: str, by: str | None, url: str, key: str | None, as_json: bool) -> None:
    told = _Server(url, key, model).ask(what, {"why": why}, by)
    if as_json:
        typer.echo(json.dumps(told))
    else:
        for line in lines_of(told):
            typer.echo(line)


class _Server:
    """The server's release of one model. Failures are printed, and end the command with code 1."""

    def __init__(self, url: str, key: str | None, model: str) -> None:
        self._base = address_of(url, model)
        self._key = key or ""
        self.url = url

    def told(self) -> dict[str, Any]:
        """Returns the present state. Waits for a front that is being started again."""
        stop = StopSignal()
        for _ in range(round(STARTING_S / EVERY_S)):
            try:
                return self.look()
            except ServerRefused as refusal:
                if refusal.status != 503 or stop.wait(EVERY_S):
                    break
            except OSError:
                break
        return self._printed(self.look)

    def look(self) -> dict[str, Any]:
        """Returns the present state. Raises OSError and ServerRefused."""
        told: dict[str, Any] = asked(f"{self._base}/release", self._key, patience_s=PATIENCE_S)
        return told

    def ask(self, what: str, body: Mapping[str, Any], by: str | None) -> dict[str, Any]:
        data = json.dumps({**body, "by": by or user()}).encode()
        path = f"{self._base}/release" + (f"/{what}" if what else "")
        return self._printed(lambda: asked(path, self._key, data, patience_s=PATIENCE_S))

    def _printed(self, call: Callable[[], Any]) -> dict[str, Any]:
        with failures_printed(self.url):
            told: dict[str, Any] = call()
        return told


def _follow(server: _Server, told: dict[str, Any], every_s: float, as_json: bool) -> NoReturn:
    """Prints what happens until the release ends or is held, and exits with its code."""
    follower = Follower(is_live=not as_json and out.is_terminal, as_json=as_json)
    stop, silent_s = StopSignal(), 0.0
    id = told["release"]["id"]
    while True:
        release = told["release"]
        for text in follower.news(told):
            typer.echo(text, nl=not follower.is_live or not text.startswith("\r"))
        if release["exit"] is not None or release["id"] != id:
            typer.echo(follower.rest(), nl=False)
            raise typer.Exit(release["exit"] if release["id"] == id else 3)
        if stop.wait(every_s):
            typer.echo(follower.rest(), nl=False)
            say("the release goes on; `headway release watch` follows it again")
            raise typer.Exit(130)
        try:
            told = server.look()
            silent_s = 0.0
        except (ServerRefused, OSError) as error:
            if isinstance(error, ServerRefused) and error.status < 500:
                fail(str(error))
            silent_s += every_s
            if silent_s == every_s:
                say(f"{server.url} does not answer ({error}); the release goes on there, or holds")
            if silent_s > LONGEST_SILENCE_S:
                fail(f"{server.url} has not answered for {LONGEST_SILENCE_S // 60} minutes")


def _span(option: str, text: str) -> int:
    seconds = span_s(text)
    if seconds is None:
        mistake(f"{option}: write a number with its unit, such as 30s, 5m or 1h")
    return seconds


def _part(option: str, text: str) -> float:
    """Returns the part that `5%` or `0.05` means."""
    try:
        return float(text.removesuffix("%").strip()) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        mistake(f"{option}: write a percentage, such as 5%")


def _say(text: str, as_json: bool) -> None:
    if not as_json:
        say(text)
