"""The front's routing table: follows the logs of the models, changes routes, and tells them to HAProxy on every node.

The log of a model says which of its versions is stable and what share a candidate has; the table holds what is in force
of it, for the versions that are served. The front is the only one that tells HAProxy, whose script
(`cluster/haproxy/following.py`) holds a request open here. Before all logs were read once it is told nothing, and goes
on with what it knows.
"""

import asyncio
import logging
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from secrets import token_hex
from typing import Any

from serving.api.faults import CallFailed, Fault, unknown_model
from serving.api.http.front import LivePage, Viewer
from serving.cluster.haproxy.following import LAST
from serving.core.clock import Calendar, Clock
from serving.names import ROUTES_PAGE
from serving.protocol.errors import BadMessage
from serving.registry.log import ModelLog, Split, last_split, written
from serving.store.log import Busy, RecordsUnreadable, RecordTooLarge
from serving.store.objects import StoreUnreachable
from serving.store.place import NoState
from serving.traffic.routes import BadRoute, Route, in_force, lines, share_of

FOLLOW_EVERY_S = 1.0
HELD_S = 4.0  # for how long a request of HAProxy's script waits for something new
WITHOUT_HAPROXY = "shares, and another stable version than the first, need HAProxy, which this server runs without"
_FIELDS = ("stable", "candidate", "share", "why", "by")

logger = logging.getLogger("ray.serve")
Applications = Mapping[str, str]  # by version, the first one first


class RouteControl:
    """Implements `api.operations.Routes`, and is what a release changes routes with.

    open_log: returns the log of a model; raises NoState or ModuleNotFoundError if there is nowhere to keep one. splits:
    whether HAProxy chooses versions here; if not, the version listed first answers what names none.
    """

    def __init__(
        self, open_log: Callable[[str], ModelLog], *, splits: bool = True, calendar: Clock | None = None
    ) -> None:
        self._open_log = open_log
        self._splits = splits
        self._calendar: Clock = calendar or Calendar()
        self._served: dict[str, Applications] = {}
        self._logs: dict[str, ModelLog] = {}
        self._unread: set[str] = set()
        self._routes: dict[str, Route] = {}
        self._news = asyncio.Event()
        self._text = ""

    # -- what is in force -------------------------------------------------------------------------------------

    def route(self, model: str) -> Route:
        """Returns the route in force. Raises CallFailed (404)."""
        if model not in self._routes:
            raise CallFailed(unknown_model(model))
        return self._routes[model]

    def log(self, model: str) -> ModelLog:
        """Returns the log of a model. Raises CallFailed (404, or 503 if there is nowhere to keep one)."""
        self.route(model)
        if model not in self._logs:
            try:
                self._logs[model] = self._open_log(model)
            except (NoState, ModuleNotFoundError) as error:
                self._unread.discard(model)  # nobody can have changed its route
                raise CallFailed(Fault(503, f"routes cannot be kept: {error}")) from None
            except StoreUnreachable as error:
                raise CallFailed(Fault(503, f"the routes cannot be read: {error}")) from None
        return self._logs[model]

    def serve(self, served: Mapping[str, Applications]) -> None:
        """Sets the applications of all models by version. Their logs are read by the next `look`."""
        several = {model for model, found in served.items() if len(found) > 1}
        self._unread |= {model for model in several if model not in self._logs}
        self._served = dict(served)
        self._project()

    async def look(self, model: str | None = None) -> None:
        """Reads what is new in the log of a model; without one, in the logs of all that have several versions.

        Raises CallFailed (503) if the store cannot be reached: then the routes are as they were."""
        wanted = [model] if model else [one for one, found in self._served.items() if len(found) > 1]
        for one in wanted:
            try:
                await self.log(one).read_new()
            except StoreUnreachable as error:
                raise CallFailed(Fault(503, f"the routes cannot be read: {error}")) from None
            self._unread.discard(one)
        if wanted:  # otherwise no log tells of a route: a server with one version of each model has nothing to follow
            self._project()

    async def keep_following(self) -> None:
        """Reads the logs every second until it is cancelled."""
        trouble = ""
        while True:
            try:
                await self.look()
                trouble = ""
            except CallFailed as failed:
                if trouble != failed.fault.text:
                    logger.warning("routes stay as they are: %s", failed.fault.text)
                trouble = failed.fault.text
            except Exception:
                logger.exception("the routes could not be read; they are tried again")
            await asyncio.sleep(FOLLOW_EVERY_S)

    # -- changes ----------------------------------------------------------------------------------------------

    async def set(
        self,
        model: str,
        *,
        stable: str,
        candidate: str | None = None,
        share: int = 0,
        by: str,
        why: str = "",
        kind: str = "routed",
        **facts: Any,
    ) -> Route:
        """Writes a record of this kind with the route to the model's log, puts it in force, and returns it.

        Raises CallFailed: 400 for a route that cannot be, 409 for another writer, 503 if the store is not reached."""
        now = self.route(model)
        try:
            wanted = now.changed(stable, candidate, share)
        except BadRoute as error:
            raise CallFailed(Fault(400, str(error))) from None
        if stable != now.stable:  # where a rollback leads: no record need have said so, as of the first of the file
            facts = {"before": now.stable, **facts}
        if not self._splits and (share or stable != next(iter(wanted.applications))):
            raise CallFailed(Fault(400, WITHOUT_HAPROXY))
        now_s, nonce = self._calendar.now_ns() // 10**9, token_hex(8)
        split = Split(stable, candidate, share)
        record = written(kind, now_s=now_s, by=by, why=why, nonce=nonce, split=split, **facts)
        try:
            await self.log(model).append(lambda _: record)
        except (Busy, RecordsUnreadable, RecordTooLarge) as error:
            raise CallFailed(Fault(409, f"the route is unchanged: {error}")) from None
        except StoreUnreachable as error:
            raise CallFailed(Fault(503, f"the route may be unchanged: {error}")) from None
        self._unread.discard(model)
        self._project()
        return self.route(model)

    def told(self, model: str) -> dict[str, Any]:
        """Returns the route of a model as JSON, with the versions that are served. Raises CallFailed (404)."""
        route = self.route(model)
        return {"model": model, "versions": list(route.applications), **route.told()}

    async def change(self, model: str, wanted: Mapping[str, Any], by: str) -> dict[str, Any]:
        """Changes the route as a request asks. What it leaves out stays, except the share of another candidate.

        by: who asks; "" for the one that the request names. Raises BadMessage and CallFailed."""
        for name in wanted:
            if name not in _FIELDS:
                raise BadMessage(f"is unknown; there are: {', '.join(_FIELDS)}", path=name[:100])
        await self.look(model)
        now = self.route(model)
        stable = _version(wanted, "stable", now.stable) or now.stable
        kept = None if now.candidate == stable else now.candidate
        candidate = _version(wanted, "candidate", kept)
        share = now.share if candidate == now.candidate and candidate is not None else 0
        if "share" in wanted:
            share = _share(wanted["share"])
        by = by or _text(wanted, "by") or "somebody on the server's machine"
        await self.set(model, stable=stable, candidate=candidate, share=share, by=by, why=_text(wanted, "why"))
        return self.told(model)

    # -- HAProxy ----------------------------------------------------------------------------------------------

    def pages(self) -> Mapping[str, LivePage]:
        async def answer(query: str, viewer: Viewer) -> tuple[str, bytes]:
            return "text/plain", (await self.news(query.removeprefix("known="))).encode()

        return {ROUTES_PAGE: answer}

    async def news(self, known: str) -> str:
        """Returns what HAProxy's script applies: a name for this list, its lines, and a last line. Waits for at most
        HELD_S seconds while the list is the one that the script knows by this name.

        Raises CallFailed (503) until all logs were read once."""
        if known == _name(self._text):
            with suppress(TimeoutError):
                async with asyncio.timeout(HELD_S):
                    await self._news.wait()
        if self._unread:
            raise CallFailed(Fault(503, f"the routes of {', '.join(sorted(self._unread))} are not known yet"))
        return f"# {_name(self._text)}\n{self._text}{LAST}\n"

    def _project(self) -> None:
        self._routes = {model: self._in_force(model, found) for model, found in self._served.items()}
        text = "".join(f"{line}\n" for line in lines(self._routes.values()))
        if text != self._text:
            logger.info("routes: %s", text.replace("\n", "; "))
            self._text = text
            self._news.set()  # for all that wait now; those that come wait for the next news
            self._news = asyncio.Event()

    def _in_force(self, model: str, found: Applications) -> Route:
        log = self._logs.get(model)
        split = last_split(log.records) if log and self._splits else None
        return in_force(model, found, split.as_mapping() if split else None)


def _name(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def _text(wanted: Mapping[str, Any], name: str) -> str:
    value = wanted.get(name, "")
    if not isinstance(value, str) or len(value) > 1000 or not value.isprintable():
        raise BadMessage("must be a text of one line, at most 1000 characters", path=name)
    return value


def _version(wanted: Mapping[str, Any], name: str, kept: str | None) -> str | None:
    value = wanted.get(name, kept)
    if value is not None and not isinstance(value, str):
        raise BadMessage('must be a version, as text: "2"', path=name)
    return value


def _share(value: object) -> int:
    if isinstance(value, str):
        try:
            return share_of(value)
        except BadRoute as error:
            raise BadMessage(str(error), path="share") from None
    if type(value) is not int:
        raise BadMessage('must be a whole number of ten-thousandths, or a text like "5%"', path="share")
    return value
