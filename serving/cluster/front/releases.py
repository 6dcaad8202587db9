"""The releases of the front: one driver for every model, in one task, and what callers may ask about and of them.

Implements `api.releases.Releases`. What is true is in the models' logs; this composes readers and writers of them.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from serving.api.faults import CallFailed, Fault, unknown_model
from serving.core.clock import Clock
from serving.protocol.errors import BadMessage
from serving.registry import changes
from serving.registry.changes import Author
from serving.registry.log import Split
from serving.release import state, telling
from serving.release.deciding import Verdict
from serving.release.log import ReleaseLog
from serving.release.plan import BadPlan, Plan, plan_of
from serving.release.rollout import Overtaken, Rollout
from serving.release.sentences import sentence
from serving.release.state import Draft, Phase, Release, latest
from serving.release.state import Releases as Known
from serving.store.log import Busy, RecordsUnreadable, RecordTooLarge
from serving.store.objects import StoreUnreachable
from serving.store.place import NoState

logger = logging.getLogger("ray.serve")
MOST_TEXT = 500
SHOWN_RECORDS = 200


class OneModel:
    """A model with its log and its driver. wake: ends the driver's pause."""

    def __init__(self, log: ReleaseLog, rollout: Rollout) -> None:
        self.log = log
        self.rollout = rollout
        self.wake = asyncio.Event()


class FrontReleases:
    """The releases of all models.

    open_model: opens the log of a model when somebody first asks, or at once with `begin`; raises StoreUnreachable.
    routed: called after a record that moves traffic, so that load balancers hear of it at once.
    """

    def __init__(
        self,
        models: Sequence[str],
        open_model: Callable[[str], OneModel],
        *,
        calendar: Clock,
        routed: Callable[[str], Awaitable[None]],
    ) -> None:
        self.models = tuple(models)
        self._open_model = open_model
        self._opened: dict[str, OneModel] = {}
        self._calendar = calendar
        self._routed = routed
        self._splits: dict[str, Split] = {}
        self._driving: dict[str, asyncio.Task[None]] | None = None

    def begin(self, *, at_once: bool) -> None:
        """Drives releases from now on. at_once: opens all logs, since one may hold a release that is running."""
        self._driving = {}
        for name in self.models if at_once else ():
            try:
                self._model(name)
            except CallFailed as failed:
                logger.warning("%s: no release can go on: %s", name, failed.fault.text)

    async def _drive(self, name: str, model: OneModel) -> None:
        while True:
            pause_s = await model.rollout.turn()
            await self._tell_routes(name, model)
            if pause_s:
                try:
                    async with asyncio.timeout(pause_s):
                        await model.wake.wait()
                except TimeoutError:
                    pass
                model.wake.clear()

    async def _tell_routes(self, name: str, model: OneModel) -> None:
        """Lets load balancers follow at once if the log names another route than before."""
        split = model.log.route()
        if self._splits.get(name) != split:
            self._splits[name] = split
            try:
                await self._routed(name)
            except Exception:
                logger.exception("%s: the route could not be followed at once; it is followed within a second", name)

    # -- what callers ask ---------------------------------------------------------------------------------------------

    async def told(self, model: str) -> dict[str, Any]:
        one = self._model(model)
        await self._asked(one.log.read_new())
        return self._told(model, one)

    async def start(self, model: str, body: Mapping[str, Any], by: str) -> dict[str, Any]:
        one = self._model(model)
        wanted, why, again, plan = _start_of(body)

        def decide(releases: Known) -> Draft:
            version = _version(one.log, wanted)
            if objection := one.log.objection(version):
                raise CallFailed(Fault(409, objection))
            running = latest(releases)
            if running is not None and running.is_running:
                raise CallFailed(Fault(409, f"a release of v{running.version} is running; abort it first"))
            split = one.log.route()
            if split.candidate is not None and split.share:
                raise CallFailed(Fault(409, f"v{split.candidate} has a share that was set by hand; take it back first"))
            if split.stable == version:
                raise CallFailed(Fault(409, f"v{version} is stable already"))
            if not again and running is not None and running.version == version:
                ago_s = self._calendar.now_ns() / 1e9 - (running.ended_s or 0.0)
                raise CallFailed(
                    Fault(
                        409,
                        f"the latest release of v{version} was {running.phase} {_span(ago_s)} ago: {running.why} "
                        "Say `again` to try once more.",
                    )
                )
            return state.start(secrets.token_hex(4), version, split.stable, plan, why)

        return await self._append(model, one, decide, by)

    async def change(self, model: str, what: str, body: Mapping[str, Any], by: str) -> dict[str, Any]:
        one, why = self._model(model), _why(body)

        def decide(releases: Known) -> Draft:
            release = latest(releases)
            if release is None or not release.is_running:
                raise CallFailed(Fault(409, f"no release of '{model}' is running"))
            if what == "abort":
                return state.abort(release, why or f"{by.removeprefix('user:')} aborted it")
            if what == "hold":
                if release.phase is Phase.HELD:
                    raise CallFailed(Fault(409, "the release is held already"))
                return state.hold(release, why or f"{by.removeprefix('user:')} holds it")
            if release.phase is not Phase.HELD:
                raise CallFailed(Fault(409, "the release is not held"))
            return state.resume(release, why or f"{by.removeprefix('user:')} resumed it")

        return await self._append(model, one, decide, by)

    async def consent(self, model: str, what: str, body: Mapping[str, Any], by: str) -> dict[str, Any]:
        one, why = self._model(model), _why(body)
        version = body.get("version")
        if not isinstance(version, str) or not version:
            raise BadMessage("must name the version", path="version")
        now_s = self._calendar.now_ns() // 1_000_000_000
        author = Author(by=by, now_s=now_s, nonce=secrets.token_hex(6), why=why)
        change = changes.approval(author, version) if what == "approve" else changes.revocation(author, version)
        await self._asked(one.log.change(change))
        return self._told(model, one)

    async def _append(self, model: str, one: OneModel, decide: Callable[[Known], Draft], by: str) -> dict[str, Any]:
        await self._asked(one.log.append(decide, by))
        one.wake.set()
        await self._tell_routes(model, one)
        return self._told(model, one)

    def _model(self, name: str) -> OneModel:
        if name not in self.models:
            raise CallFailed(unknown_model(name))
        if name not in self._opened:
            try:
                self._opened[name] = self._open_model(name)
            except (StoreUnreachable, NoState, ModuleNotFoundError) as error:
                raise CallFailed(Fault(503, f"the registry cannot be opened: {error}")) from None
            if self._driving is not None:
                self._driving[name] = asyncio.get_running_loop().create_task(self._drive(name, self._opened[name]))
        return self._opened[name]

    @staticmethod
    async def _asked(call: Awaitable[object]) -> None:
        """Awaits a call of the log. Raises CallFailed for what a store may raise."""
        try:
            await call
        except changes.Refused as error:
            raise CallFailed(Fault(409, str(error))) from None
        except RecordTooLarge as error:
            raise CallFailed(Fault(409, f"nothing was changed: the record is too large: {error}")) from None
        except (Busy, Overtaken) as error:
            raise CallFailed(Fault(409, f"somebody else wrote at the same time: {error}")) from None
        except (StoreUnreachable, RecordsUnreadable) as error:
            raise CallFailed(Fault(503, f"the registry cannot be read or written: {error}")) from None

    def _told(self, name: str, one: OneModel) -> dict[str, Any]:
        releases = one.log.releases
        split = one.log.route()
        release = latest(releases)
        return {
            "model": name,
            "now": self._calendar.now_ns() / 1e9,
            "route": split.as_mapping(),
            "release": None if release is None else telling.told(release, _of(release, one.rollout.verdict)),
        }

    # -- the page -----------------------------------------------------------------------------------------------------

    async def page(self, name: str) -> dict[str, Any]:
        """Returns what the page shows of a model: besides `told`, its versions and its history."""
        one = self._model(name)
        trouble = ""
        try:
            await one.log.read_new()
        except StoreUnreachable as error:
            trouble = f"The registry cannot be read now ({error}); what is shown may be old."
        told = self._told(name, one)
        known = one.log.state
        split = one.log.route()
        versions = [
            {
                "number": version.number,
                "digest": version.digest,
                "author": version.author,
                "at": version.at,
                "why": version.why,
                "approvals": [approval._asdict() for approval in version.approvals],
                "archived": version.archived,
                "released": version.released,
                "objection": one.log.objection(version.number),
                "serves": version.number == split.stable or (version.number == split.candidate and split.share > 0),
            }
            for version in reversed(list(known.versions.values()))
        ]
        history = [
            {"at": record.at, "by": record.by, "why": record.why, "kind": record.kind, "text": sentence(record)}
            for record in reversed(one.log.records[-2 * SHOWN_RECORDS :])
            if record.kind != state.Kind.EVIDENCE
        ]
        return {**told, "trouble": trouble, "versions": versions, "history": history[:SHOWN_RECORDS]}


def _of(release: Release, verdict: Verdict | None) -> Verdict | None:
    return verdict if release.is_running else None


def _start_of(body: Mapping[str, Any]) -> tuple[str, str, bool, Plan]:
    told = dict(body)
    version, why, again = told.pop("version", None), _why(told), told.pop("again", False)
    told.pop("why", None)
    if not isinstance(version, str) or not version:
        raise BadMessage("must name the version to release", path="version")
    if not isinstance(again, bool):
        raise BadMessage("must be true or false", path="again")
    try:
        return version, why, again, plan_of(told)
    except BadPlan as error:
        raise BadMessage(error.text, path=error.path) from None


def _version(log: ReleaseLog, wanted: str) -> str:
    """Returns the number of the version that is named by number, `v5`, or the beginning of its hash."""
    number = wanted.removeprefix("v")
    if not log.objection(number):
        return number
    try:
        return log.state.find(wanted).number
    except LookupError:
        return number


def _why(body: Mapping[str, Any]) -> str:
    why = body.get("why", "")
    if not isinstance(why, str) or len(why) > MOST_TEXT:
        raise BadMessage(f"must be a text of at most {MOST_TEXT} characters", path="why")
    return why


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
