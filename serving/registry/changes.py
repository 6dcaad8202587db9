"""Changes of a model's history by a person: what each needs, what it refuses, and the record that it writes.

Pure functions of the records as they are when the record is written: `ModelLog.append` asks again if another writer
was faster. `by` is a person or a key, as the caller knows them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from serving.registry.log import Records, Split, written
from serving.registry.state import State, UnknownVersion, Version, fold

Decide = Callable[[Records], bytes]


class Refused(Exception):
    """The change is not possible. The text says why."""


@dataclass(frozen=True, slots=True)
class Author:
    """The person or key that changes something, when and why. nonce: tells equal records of two writers apart."""

    by: str
    now_s: int
    nonce: str
    why: str = ""

    def record(self, kind: str, *, split: Split | None = None, **facts: object) -> bytes:
        return written(kind, now_s=self.now_s, by=self.by, why=self.why, nonce=self.nonce, split=split, **facts)


class AlreadyRegistered(Refused):
    """The same content is a version already."""

    def __init__(self, version: Version) -> None:
        self.version = version
        super().__init__(f"this is v{version.number} already, registered {version.at} by {version.author}")


def registration(author: Author, digest: str) -> Decide:
    """Returns the change that makes a version of this content. Raises AlreadyRegistered when it is decided."""

    def decide(records: Records) -> bytes:
        state = fold(records)
        if version := state.of_digest(digest):  # not of an archived one, whose files may be gone
            raise AlreadyRegistered(version)
        number = str(1 + max((int(one) for one in state.versions if one.isdecimal()), default=0))
        return author.record("registered", version=number, digest=digest)

    return decide


def approval(author: Author, text: str) -> Decide:
    """Returns the change by which `author` approves a version. Refuses its author, and a second approval."""
    return partial(_decided, author, text, _approved)


def revocation(author: Author, text: str, of: str | None = None) -> Decide:
    """Returns the change that takes back an approval, the author's own or that `of` another. Not after a release."""
    return partial(_decided, author, text, partial(_revoked, of=of or author.by))


def archival(author: Author, text: str) -> Decide:
    """Returns the change that retires a version, so that its files may be removed. Not one that serves, or did last."""
    return partial(_decided, author, text, _archived)


def rollback(author: Author, to: str | None = None) -> Decide:
    """Returns the change that takes the traffic back: from a candidate that has some, else to the version that was
    stable before. to: to this version instead."""

    def decide(records: Records) -> bytes:
        state = fold(records)
        route = state.route
        if to is not None:
            target = _found(state, to)
            if not target.released:
                raise Refused(f"v{target.number} was never released, so there is no way back to it; release it instead")
            if target.archived:
                raise Refused(f"v{target.number} is archived")
            number = target.number
        elif route is None:
            raise Refused("no version was released yet, so there is nothing to roll back")
        elif route.candidate is not None:
            number = route.stable
        elif (before := state.before()) is not None:
            number = before
        else:
            raise Refused(f"v{route.stable} is the first stable version; there is none before it")
        if route == Split(number):
            raise Refused(f"v{number} has all the traffic already")
        left = None if route is None else route.candidate or route.stable
        return author.record("rolled_back", split=Split(number), version=number, left=left)

    return decide


def _decided(author: Author, text: str, rule: Callable[[Author, State, Version], bytes], records: Records) -> bytes:
    state = fold(records)
    return rule(author, state, _found(state, text))


def _found(state: State, text: str) -> Version:
    try:
        return state.find(text)
    except UnknownVersion as error:
        raise Refused(str(error)) from None


def _approved(author: Author, state: State, version: Version) -> bytes:
    if version.archived:
        raise Refused(f"v{version.number} is archived")
    if author.by == version.author:
        raise Refused(f"{author.by} has registered v{version.number}; somebody else has to approve it")
    if any(one.by == author.by for one in version.approvals):
        raise Refused(f"{author.by} has approved v{version.number} already")
    return author.record("approved", version=version.number)


def _revoked(author: Author, state: State, version: Version, *, of: str) -> bytes:
    if version.released:
        raise Refused(f"v{version.number} is released already; roll it back instead")
    if not any(one.by == of for one in version.approvals):
        raise Refused(f"{of} has not approved v{version.number}")
    return author.record("approval_revoked", version=version.number, of=of)


def _archived(author: Author, state: State, version: Version) -> bytes:
    if version.archived:
        raise Refused(f"v{version.number} is archived already")
    route = state.route
    if route is not None and version.number in (route.stable, route.candidate):
        raise Refused(f"v{version.number} serves; release another version first")
    if version.number == state.before():
        raise Refused(f"v{version.number} was stable last: a rollback would need it")
    return author.record("archived", version=version.number)
