"""Tells the records of a model as sentences, for people: `headway registry history` and the pages."""

from collections.abc import Callable

from serving.registry.log import Record, Split
from serving.traffic.routes import percent


def sentence(record: Record) -> str:
    """Returns what happened, without who, when and why. A record of an unknown kind is told by its kind."""
    tell = _TOLD.get(record.kind)
    what = tell(record) if tell else record.kind.replace("_", " ")
    return what if record.split is None else f"{what}; {traffic(record.split)}"


def traffic(split: Split) -> str:
    """Returns who answers: `v4 answers`, or with a candidate its percentage."""
    if split.candidate is None or not split.share:
        return f"v{split.stable} answers"
    return f"v{split.candidate} answers {percent(split.share)}, v{split.stable} the others"


def _named(record: Record) -> str:
    return f"v{record.text('version')}"


_TOLD: dict[str, Callable[[Record], str]] = {
    "registered": lambda record: f"registered {_named(record)} ({record.text('digest')[:12]})",
    "validated": lambda record: f"checked {_named(record)}",
    "approved": lambda record: f"approved {_named(record)}",
    "approval_revoked": lambda record: f"took back the approval of {_named(record)} by {record.text('of')}",
    "archived": lambda record: f"archived {_named(record)}",
    "rolled_back": lambda record: "rolled back",
    "routed": lambda record: "set the traffic by hand",
}
