"""The log of a model as releases read and write it: the registry's, folded into releases.

What the records of a release mean is in `state.py`; whether a version may be released, this asks the registry's fold.
"""

import secrets
from collections.abc import Callable, Collection

from serving.core.clock import Clock
from serving.registry.log import ModelLog, Records, Split, written
from serving.registry.state import State, fold
from serving.release.state import Draft, Releases, folded

Decide = Callable[[Releases], Draft]


class ReleaseLog:
    """Implements `rollout.ModelLog` by the log of a model, which others may read and write too.

    configured: the versions of the settings, the first of which is stable while no record says otherwise. needed: how
    many approvals a version of the registry needs.
    """

    def __init__(self, log: ModelLog, configured: Collection[str], *, needed: int, calendar: Clock) -> None:
        self._log = log
        self._configured = tuple(configured)
        self._needed = needed
        self._calendar = calendar
        self._folded: tuple[int, Releases] = (0, ())
        self._state: tuple[int, State] = (0, State())

    @property
    def records(self) -> Records:
        return self._log.state

    @property
    def releases(self) -> Releases:
        known, releases = self._folded
        records = self.records
        for number in range(known, len(records)):
            releases = folded(releases, number + 1, records[number])
        self._folded = len(records), releases
        return releases

    @property
    def state(self) -> State:
        """The versions and approvals of the registry."""
        if self._state[0] != len(self.records):
            self._state = len(self.records), fold(self.records)
        return self._state[1]

    async def read_new(self) -> bool:
        return await self._log.read_new()

    def objection(self, version: str) -> str:
        """Returns why this version may not be released, "" if it may. Versions of the settings alone need no approval:
        who writes the settings deploys them."""
        known = self.state.versions.get(version)
        if known is None:
            return "" if version in self._configured else f"there is no v{version} in the registry or in the settings"
        if known.archived:
            return f"v{version} is archived"
        lacking = self._needed - len(known.approvals)
        if lacking <= 0:
            return ""
        return f"v{version} has {len(known.approvals)} of the {self._needed} approvals that a release needs"

    def route(self) -> Split:
        """Returns who answers the unversioned path."""
        return self.state.route or Split(self._configured[0] if self._configured else "")

    async def change(self, decide: Callable[[Records], bytes]) -> None:
        """Adds a record of the registry, an approval say. Raises what `ModelLog.append` raises."""
        await self._log.append(decide)

    async def append(self, decide: Decide, by: str) -> None:
        nonce = secrets.token_hex(6)  # two writers of the same record are told apart

        def made(_: Records) -> bytes:
            draft = decide(self.releases)
            now_s = self._calendar.now_ns() // 1_000_000_000
            return written(draft.kind, now_s=now_s, by=by, why=draft.why, nonce=nonce, split=draft.split, **draft.facts)

        await self._log.append(made)
