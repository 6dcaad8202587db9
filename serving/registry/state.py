"""The state that follows from the records of a model: its versions, their approvals, and which of them answers.

Pure: no store, no clock. Records of kinds that are not known here change nothing but, with their route, the traffic.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from serving.registry.log import Record, Split

SHORTEST_PREFIX = 6  # of a hash, as a name of a version


class UnknownVersion(LookupError):
    """The model has no such version, or several. The text says which there are."""


class Approval(NamedTuple):
    """A person's consent to a version. at: RFC 3339, UTC."""

    by: str
    at: str
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A version of a model. number: "1", "2" and so on. digest: the SHA-256 of its manifest, in hexadecimal.

    approvals: those that were not revoked. released: it is stable or a candidate with traffic, or was.
    """

    number: str
    digest: str
    author: str
    at: str
    why: str = ""
    approvals: tuple[Approval, ...] = ()
    archived: bool = False
    released: bool = False

    def is_approved(self, needed: int) -> bool:
        return not self.archived and len(self.approvals) >= needed


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A model as its records left it. versions: by number, the oldest first.

    route: None before the first record that changes traffic; then the first version in the settings is stable.
    stables: the versions to which rollbacks lead, one after the other, and the stable one as the last.
    """

    versions: Mapping[str, Version] = field(default_factory=dict)
    route: Split | None = None
    stables: tuple[str, ...] = ()

    def find(self, text: str) -> Version:
        """Returns the version that a person names: `v5`, `5`, or at least six digits of its hash.

        Raises UnknownVersion."""
        number = text.removeprefix("v")
        if number in self.versions:
            return self.versions[number]
        known = ", ".join(f"v{number}" for number in self.versions) or "none"
        if len(text) >= SHORTEST_PREFIX:
            found = [version for version in self.versions.values() if version.digest.startswith(text)]
            if len(found) == 1:
                return found[0]
            if found:
                raise UnknownVersion(f"{text!r} begins the hash of {len(found)} versions; write more of it")
        raise UnknownVersion(f"there is no version {text!r}; there is {known}")

    def of_digest(self, digest: str) -> Version | None:
        """Returns the version with this content that is not archived. None if there is none."""
        return next((one for one in self.versions.values() if one.digest == digest and not one.archived), None)

    def before(self) -> str | None:
        """Returns the version that was stable before the one that is, and can be so again. None if there is none."""
        for number in reversed(self.stables):
            version = self.versions.get(number)
            if number != self.stables[-1] and (version is None or not version.archived):
                return number
        return None

    def served(self, needed: int) -> Version | None:
        """Returns the version that serves if the settings name none: the stable one, else the newest approved one.

        needed: how many approvals that takes. None if there is no such version."""
        if self.route is not None and self.route.stable in self.versions:
            return self.versions[self.route.stable]
        return next((one for one in reversed(list(self.versions.values())) if one.is_approved(needed)), None)


def fold(records: Iterable[Record]) -> State:
    """Returns what follows from these records, the oldest first."""
    state = State()
    for record in records:
        state = after(state, record)
    return state


def after(state: State, record: Record) -> State:
    """Returns the state after one more record. A record about an unknown version changes only the traffic."""
    number = record.text("version")
    version = state.versions.get(number)
    if record.kind == "registered":
        if version is None and number and record.text("digest"):
            digest = record.text("digest")
            new = Version(number=number, digest=digest, author=record.by, at=record.at, why=record.why)
            state = replace(state, versions={**state.versions, number: new})
    elif version is not None:
        state = replace(state, versions={**state.versions, number: _changed(version, record)})
    if record.split is None:
        return state
    if (before := record.text("before")) and before != record.split.stable:  # was stable without a record of it
        state = _routed(state, Split(before), back=False)
    return _routed(state, record.split, back=record.kind == "rolled_back")


def _changed(version: Version, record: Record) -> Version:
    approvals = version.approvals
    if record.kind == "approved" and record.by not in (version.author, *(one.by for one in approvals)):
        return replace(version, approvals=(*approvals, Approval(record.by, record.at, record.why)))
    if record.kind == "approval_revoked" and not version.released:
        of = record.text("of") or record.by
        return replace(version, approvals=tuple(one for one in approvals if one.by != of))
    if record.kind == "archived":
        return replace(version, archived=True)
    return version


def _routed(state: State, split: Split, *, back: bool) -> State:
    reached = {split.stable, *([split.candidate] if split.candidate and split.share else [])}
    versions = {
        number: replace(version, released=True) if number in reached and not version.released else version
        for number, version in state.versions.items()
    }
    stables = state.stables
    if back and split.stable in stables:  # the next rollback goes further back, not forth again
        stables = stables[: stables.index(split.stable) + 1]
    elif stables[-1:] != (split.stable,):
        stables = (*stables, split.stable)
    return replace(state, versions=versions, route=split, stables=stables)
