"""Tells the records of releases as sentences, for people; those of the registry are told by the registry."""

from collections.abc import Callable

from serving.registry import sentences
from serving.registry.log import Record
from serving.release.deciding import SMOKE
from serving.release.state import Kind


def sentence(record: Record) -> str:
    """Returns what happened, without who, when and why."""
    tell = _TOLD.get(record.kind) if record.text("release") else None
    if tell is None:
        return sentences.sentence(record)
    what = tell(record)
    return what if record.split is None else f"{what}; {sentences.traffic(record.split)}"


def _test(record: Record) -> str:
    name = "the model's example" if record.text("test") == SMOKE else "recorded requests"
    outcome = record.facts.get("outcome")
    passed = isinstance(outcome, dict) and outcome.get("passed")
    return f"tested {_version(record)} with {name}: it {'passed' if passed else 'failed'}"


def _version(record: Record) -> str:
    return f"v{record.text('version')}"


_TOLD: dict[str, Callable[[Record], str]] = {
    Kind.STARTED: lambda record: f"began to release {_version(record)} in place of v{record.text('stable')}",
    Kind.TESTED: _test,
    Kind.STEP: lambda record: "began the next step" if record.facts.get("step") else "began the first step",
    Kind.HELD: lambda record: f"held the release of {_version(record)}",
    Kind.RESUMED: lambda record: f"let the release of {_version(record)} go on",
    Kind.PROMOTED: lambda record: f"promoted {_version(record)}",
    Kind.ROLLED_BACK: lambda record: f"rolled {_version(record)} back",
    Kind.ABORTED: lambda record: f"aborted the release of {_version(record)}",
}
