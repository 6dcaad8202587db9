"""A builder of exchanges with defaults for tests."""

from typing import Any

from serving.core.outcome import Completed, Timings
from serving.core.witness import Exchange
from tests.core.stories import ms

COMPLETED = Completed({"secret": "payload"}, ms(20), Timings(ms(1), ms(30), ms(2), 4))


def exchange(**more: Any) -> Exchange:
    """Returns an exchange of 60 ms: 4 ms of decoding, the phases of COMPLETED and 3 ms of encoding."""
    fields: dict[str, Any] = {
        "wire": "http",
        "id": "abc-1",
        "tenant": "acme",
        "status": 200,
        "outcome": COMPLETED,
        "traceparent": "",
        "began_ns": ms(1000),
        "settled_ns": ms(1057),
        "ended_ns": ms(1060),
    }
    return Exchange(**{**fields, **more})
