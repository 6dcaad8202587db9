"""Writes the progress of a release as lines for a terminal or a log, and as JSON for programs. Pure.

In a terminal, the last line shows the present step and is written over; elsewhere it is written now and then.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from serving.traffic.routes import SHARES, percent

HELD = 4  # the exit code of a release that is held
_WORDS = {
    "release_started": "began",
    "tested": "tested",
    "step": "step",
    "held": "held",
    "resumed": "resumed",
    "promoted": "promoted",
    "rolled_back": "rolled back",
    "aborted": "aborted",
    "routed": "overtaken",
}
_WIDTH = 24
_QUIET_S = 15.0  # between two lines about the same step, where they are not written over


class Follower:
    """The lines that are new since the last look. is_live: the last line is written over."""

    def __init__(self, *, is_live: bool, as_json: bool = False) -> None:
        self.is_live = is_live
        self._as_json = as_json
        self._seen = 0
        self._said_s = 0.0
        self._open = False

    def news(self, told: Mapping[str, Any]) -> Iterator[str]:
        """Yields what is new in this answer of the server."""
        release = told["release"]
        events = [event for event in release["events"] if event["number"] > self._seen]
        if self._as_json:
            if events or told["now"] - self._said_s >= _QUIET_S:
                self._said_s = told["now"]
                self._seen = max((event["number"] for event in events), default=self._seen)
                yield json.dumps(told, separators=(",", ":"))
            return
        for event in events:
            self._seen = event["number"]
            yield from self._over(event_line(event))
        if release["exit"] is not None:
            yield from self._over(last_line(told))
        elif self.is_live:
            self._open = True
            yield f"\r\x1b[2K{progress(told)}"
        elif told["now"] - self._said_s >= _QUIET_S or events:
            self._said_s = told["now"]
            yield progress(told)

    def _over(self, text: str) -> Iterator[str]:
        if self._open:
            self._open = False
            yield "\r\x1b[2K"
        yield text

    def rest(self) -> str:
        """Returns what ends the line that is written over, if there is one."""
        return "\n" if self._open else ""


def lines_of(told: Mapping[str, Any]) -> list[str]:
    """Returns a release as lines: its steps so far, the present one with its evidence, and how it ended."""
    release = told["release"]
    lines = [f"{told['model']}@v{release['version']} in place of v{release['stable']}: {release['phase']}"]
    lines += [event_line(event) for event in release["events"]]
    if release["exit"] is None:
        lines.append(progress(told))
    lines += [f"  {text}" for text in evidence_lines(release)]
    return lines if release["exit"] is None else [*lines, last_line(told)]


def event_line(event: Mapping[str, Any]) -> str:
    at = datetime.fromtimestamp(event["at_s"], UTC).strftime("%H:%M:%SZ")
    word = _WORDS.get(event["kind"], event["kind"])
    share = f" {percent(event['share'])}" if event["kind"] == "step" else ""
    why = f": {event['why']}" if event["why"] else ""
    return f"{at}  {word}{share}{why}  ({event['by'].removeprefix('user:')})"


def progress(told: Mapping[str, Any]) -> str:
    """Returns the present step on one line: a bar of its share, both versions' numbers, and what it waits for."""
    release = told["release"]
    arms = release["arms"]
    if arms is None:
        return f"v{release['version']} is deployed and tested; no client's request reaches it yet"
    share = release["share"] / SHARES
    full = round(share * _WIDTH)
    bar = "█" * full + "░" * (_WIDTH - full)
    ours, theirs = arms["candidate"], arms["stable"]
    missing = release["waits_for"].split(". ")[0].rstrip(".")
    since = told["now"] - (release["stepped_s"] or told["now"])
    return (
        f"{bar} {100 * share:g} % for {since:.0f} s; errors {_percent(ours['errors']['value'])} of {ours['computed']}"
        f" (stable {_percent(theirs['errors']['value'])} of {theirs['computed']})"
        f", p95 {_ms(ours['p95_ms']['value'])} (stable {_ms(theirs['p95_ms']['value'])})"
        + (f"; {missing}" if missing else "")
    )


def evidence_lines(release: Mapping[str, Any]) -> list[str]:
    """Returns the findings of the judge, one on each line, with a mark at what is shown."""
    findings = (release["judgement"] or {}).get("findings", [])
    return [f"{'✓' if finding['shown'] else '·'} {finding['text']}" for finding in findings]


def last_line(told: Mapping[str, Any]) -> str:
    release, stable = told["release"], told["route"]["stable"]
    name = f"{told['model']}@v{release['version']}"
    if release["exit"] == 0:
        return f"PROMOTED: {name} answers all requests"
    if release["exit"] == HELD:
        go_on = f"Go on with `headway release resume {told['model']}`, or abort it."
        return f"HELD at {percent(release['share'])}: {release['why']}\n{go_on}"
    return f"{release['phase'].upper()}: v{stable} answers all requests. {release['why']}"


def _percent(part: float | None) -> str:
    return "–" if part is None else f"{100 * part:.2g} %"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g} ms"
