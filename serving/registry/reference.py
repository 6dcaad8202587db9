"""Names of versions in settings and commands: `registry:ranker@v4`, `ranker@v4`. Pure; knows no store."""

import re
from typing import NamedTuple

SCHEME = "registry:"
_FACTORY = re.compile(r"registry:([A-Za-z0-9][A-Za-z0-9._-]{0,99})(?:@v?([1-9][0-9]{0,8})(?:#([0-9a-f]{64}))?)?")
_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,99})@([A-Za-z0-9]{1,64})")


class Reference(NamedTuple):
    """A model of the registry. number: None for the version that is released. digest: "" until it was looked up."""

    model: str
    number: str | None = None
    digest: str = ""

    def __str__(self) -> str:
        version = "" if self.number is None else f"@v{self.number}"
        return f"{SCHEME}{self.model}{version}{'#' + self.digest if self.digest else ''}"


def reference_in(factory: str) -> Reference | None:
    """Returns what a factory names in the registry, None if it is an import string.

    Raises ValueError for one that begins with `registry:` and names nothing."""
    if not factory.startswith(SCHEME):
        return None
    if not (match := _FACTORY.fullmatch(factory)):
        raise ValueError(f"{factory!r} names no model of the registry; write registry:model, or registry:model@v4")
    return Reference(match[1], match[2], match[3] or "")


def named(text: str) -> tuple[str, str | None]:
    """Returns the model and the version in `ranker@v4`, or the model alone. The caller checks both."""
    match = _NAMED.fullmatch(text)
    return (match[1], match[2]) if match else (text, None)
