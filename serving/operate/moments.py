"""Instants and spans of time as people write them on the command line: `2027-02-27T08:00:59Z`, `90d`."""

import re
from datetime import UTC, datetime

LONGEST_S = 100 * 366 * 86400
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def shown(at_s: int) -> str:
    """Returns the instant, in seconds since 1970, in ISO 8601 and UTC."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def span_s(text: str) -> int | None:
    """Returns the seconds of a span such as `90d`, at most a hundred years. None if it is none."""
    match = re.fullmatch(r"([0-9]{1,9})([smhdw])", text)
    if match is None:
        return None
    seconds = int(match[1]) * _SECONDS[match[2]]
    return seconds if seconds <= LONGEST_S else None
