"""The values that clients send back for answers, by the ids of their requests: read here, kept until collected.

Any replica of the model takes them. Whether an id is known is not told: an id of another tenant and one that was never
used get the same answer.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from serving.api.faults import CallFailed, Fault, retry_after
from serving.protocol.errors import BadMessage

MAX_BODY_BYTES = 1024 * 1024
MOST_AT_ONCE = 1000  # values in a message
MOST_KEPT = 10_000
MOST_ID_CHARACTERS = 256
_FULL = Fault(503, "too many values wait to be collected", (retry_after(1_000_000_000),), 1_000_000_000)
_FIELDS = ("id", "value")


class FeedbackBox:
    """The values that a replica has received. They are kept only while somebody collects them: `is_open`."""

    def __init__(self) -> None:
        self.is_open = False
        self._kept: list[tuple[str, str, float]] = []

    def put(self, tenant: str, body: bytes) -> int:
        """Takes the values in a message of a tenant. Returns their number.

        Takes none of them and raises BadMessage if one is faulty, CallFailed (503) if they find no room."""
        values = read_feedback(body)
        if self.is_open:
            if len(self._kept) + len(values) > MOST_KEPT:
                raise CallFailed(_FULL)
            self._kept += [(tenant, id, value) for id, value in values]
        return len(values)

    def take(self) -> list[tuple[str, str, float]]:
        """Returns what was received since the last call: tenant, id and value."""
        taken, self._kept = self._kept, []
        return taken


def read_feedback(body: bytes) -> list[tuple[str, float]]:
    """Returns the ids and values of a message: an object with both, or a list of these. Raises BadMessage."""
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadMessage(f"not valid JSON: {error}") from None
    if isinstance(given, list):
        if not 0 < len(given) <= MOST_AT_ONCE:
            raise BadMessage(f"a list of feedback has 1 to {MOST_AT_ONCE} entries, not {len(given)}")
        return [_one(entry, f"[{index}].") for index, entry in enumerate(given)]
    return [_one(given, "")]


def _one(given: Any, path: str) -> tuple[str, float]:
    if not isinstance(given, Mapping):
        raise BadMessage("must be an object with `id` and `value`", path=path.rstrip("."))
    for name in given:
        if name not in _FIELDS:
            raise BadMessage("is unknown; the fields are `id` and `value`", path=f"{path}{name[:100]}")
    id, value = given.get("id"), given.get("value")
    if not isinstance(id, str) or not 0 < len(id) <= MOST_ID_CHARACTERS:
        raise BadMessage(
            f"must be the id of a request, a text of 1 to {MOST_ID_CHARACTERS} characters", path=f"{path}id"
        )
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise BadMessage("must be a number from 0 to 1", path=f"{path}value")
    return id, float(value)
