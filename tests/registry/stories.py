"""Histories of models for tests, as short lines of events, without a store and without a clock."""

from collections.abc import Iterator

from serving.registry.changes import Author
from serving.registry.log import Records, Split, folded
from serving.registry.state import State, fold

NOW_S = 1_800_000_000
DIGESTS = {str(number): f"{number:02x}" * 32 for number in range(1, 30)}


def author(by: str = "user:anna", why: str = "", nonce: str = "n", now_s: int = NOW_S) -> Author:
    return Author(by, now_s, nonce, why)


def records_of(*events: str) -> Records:
    """Returns the records of events such as `anna registered 1`, `ben approved 1`, `ben took 1`, `anna archived 1`,
    `anna routed 1`, `anna routed 1 2 500` and `anna rolled_back 1`."""
    records: Records = ()
    for number, event in enumerate(events):
        for record in events_written(number, event):
            records = folded(records, record)
    return records


def state_of(*events: str) -> State:
    return fold(records_of(*events))


def events_written(number: int, event: str) -> Iterator[bytes]:
    """Yields the records of one event."""
    by, verb, version, *more = event.split()
    who = author(f"user:{by}", nonce=str(number), now_s=NOW_S + number)
    if verb == "registered":
        yield who.record("registered", version=version, digest=DIGESTS[version])
    elif verb == "took":
        yield who.record("approval_revoked", version=version, of=f"user:{more[0]}" if more else who.by)
    elif verb in ("routed", "promoted", "rolled_back"):
        split = Split(version, more[0], int(more[1])) if more else Split(version)
        yield who.record(verb, split=split, version=version)
    else:
        yield who.record(verb, version=version)
