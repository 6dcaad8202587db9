"""The feature store of a server: pushes rows into views, and reads features as of now. For all wires and tenants."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Protocol, TypeVar

from serving.api.admission.quota import Quota
from serving.api.faults import CallFailed, Fault, retry_after
from serving.core.clock import Calendar, Clock
from serving.features.offline.spool import Spool
from serving.features.reading import Answers, Found, Reason, Selection, Stored, keep_ms
from serving.features.requests import Refused, asked_of, columns, described, pushed_of
from serving.features.rows import BadField, Row, rows_of
from serving.features.views import FeatureView, FeatureViews
from serving.store.base import StoreUnavailable
from serving.store.features import FeatureStore, Wanted, Write
from serving.store.guard import Guard
from serving.store.lookups import LookUpObserver, LookUps
from serving.telemetry.served_features import ServedLog

Json = dict[str, Any]
Item = TypeVar("Item")
Make = Callable[[FeatureView, Sequence[object], int], list[Row]]
ROWS_AT_ONCE = 100  # checked before the event loop turns to something else
WRITES_AT_ONCE = 250  # values in one round trip, for the same reason
SOON_NS = 1_000_000_000
LIMIT_S = 0.01  # that a look-up waits for the store


class FeatureObserver(LookUpObserver, Protocol):
    """Is told about look-ups, and about what is answered. All methods are called on the event loop."""

    def served(self, view: str, present: int, others: Iterable[Iterable[str]]) -> None:
        """Called for each look-up of a view. present: how many values are of entities all of whose values are valid.
        others: the reasons of the rest, by entity."""


class OnlineFeatures:
    """Implements `api.features.Features`.

    tenant_header: the header in which clients name their tenant, where they need no credential; "" for one tenant.
    quota: of requests of clients; None if nothing bounds them.
    reads, writes: bound the time of a round trip. limit_s: how long a look-up of 500 values waits for the store.
    observer: of look-ups. calendar: the time of day.
    spool: keeps what is pushed for the history of features; None keeps it online only.
    log: is told about a sample of what is served; None if nobody is.
    make: makes rows of raw ones, at a time in ms; raises BadField. None where that is not possible.
    """

    def __init__(
        self,
        views: FeatureViews,
        store: FeatureStore,
        *,
        reads: Guard,
        writes: Guard,
        limit_s: float = LIMIT_S,
        observer: FeatureObserver | None = None,
        tenant_header: str = "",
        quota: Quota | None = None,
        calendar: Clock | None = None,
        spool: Spool | None = None,
        log: ServedLog | None = None,
        make: Make | None = None,
    ) -> None:
        self.tenant_header = tenant_header.lower()
        self.quota = quota
        self._views = views
        self._store = store
        self._observer = observer or _Nobody()
        self._look_ups: LookUps[Wanted, Sequence[Found]] = LookUps(
            store.read, reads, self._observer, limit_s=limit_s, size=lambda one: len(one.features)
        )
        self._whole = {view.name: Selection(view, view.features) for view in views.views.values()}
        self._writes = writes
        self._calendar: Clock = calendar or Calendar()
        self._spool = spool
        self._log = log
        self._make = make

    async def connect(self) -> None:
        """Opens a connection to the store ahead of the first request. A store that does not answer is no error."""
        await self._look_ups.find([Wanted("", "", "", ("",))])
        await self._look_ups.settle()  # opening it may take longer than a look-up may

    def described(self) -> list[Json]:
        return [described(view) for view in self._views.views.values()]

    async def push(self, tenant: str, view: str, body: Mapping[str, object]) -> Json:
        """Writes rows: for the history first, from which all that is online can be made again.

        Nothing is written if one of them has a mistake. Raises CallFailed."""
        into = self._view(view)
        try:
            given, is_raw = pushed_of(body)
            rows = await (self._made(into, given) if is_raw else self._checked(into, given))
        except BadField as error:
            raise CallFailed(Fault(400, str(error))) from None
        await self._keep(tenant, into, rows)
        whole = sum(len(row.values) for row in rows)
        written: list[bool] = []
        for some in _pieces(writes_of(into, tenant, rows), WRITES_AT_ONCE):
            try:
                written += await self._writes.call(partial(self._store.write, some))
            except StoreUnavailable as error:
                raise CallFailed(_not_written(len(written), whole, error)) from error
        return {"written": sum(written), "superseded": whole - sum(written)}

    async def get(self, tenant: str, view: str, body: Mapping[str, object]) -> Json:
        """Returns features of entities, in columns. Raises CallFailed."""
        of_view = self._view(view)
        try:
            asked = asked_of(of_view, body)
            whole = self._whole[view]
            selection = whole if asked.features is of_view.features else Selection(of_view, asked.features)
            return columns(selection, asked, await self.answers(tenant, selection, asked.ids))
        except BadField as error:
            raise CallFailed(Fault(400, str(error))) from None
        except Refused as error:
            raise CallFailed(_refusal(error)) from None

    async def answers(self, tenant: str, asked: Selection, ids: Sequence[str]) -> list[Answers]:
        """Returns, for each entity, the answer for each of these features. Without an answer of the store, UNAVAILABLE
        is the reason of all."""
        entity, names = asked.view.entity, asked.names
        found = await self._look_ups.find([Wanted(tenant, entity, id, names) for id in ids])
        if found is None:
            found = [[Reason.UNAVAILABLE] * len(names)] * len(ids)
        now_ms = self._now_ms()
        told = [asked.answers(of_entity, now_ms) for of_entity in found]
        lacking = [one.reasons for one in told if one.reasons is not asked.all_present]
        self._observer.served(asked.view.name, (len(told) - len(lacking)) * len(names), lacking)
        if self._log is not None:
            self._log.note(tenant, asked.view.name, names, ids, told, now_ms)
        return told

    async def close(self) -> None:
        await self._store.close()

    async def _keep(self, tenant: str, view: FeatureView, rows: Sequence[Row]) -> None:
        if self._spool is None:
            return
        try:
            await self._spool.append(tenant, view, rows)
        except ValueError as error:
            raise CallFailed(Fault(400, str(error))) from None
        except OSError as error:
            raise CallFailed(_not_kept(error)) from error

    def _view(self, name: str) -> FeatureView:
        try:
            return self._views.views[name]
        except KeyError:
            raise CallFailed(Fault(404, f"there is no feature view {name[:100]!r}")) from None

    async def _checked(self, view: FeatureView, given: Sequence[object]) -> list[Row]:
        now_ms = self._now_ms()
        rows: list[Row] = []
        for some in _pieces(given, ROWS_AT_ONCE):
            rows += rows_of(view, some, now_ms=now_ms, first=len(rows))
            await asyncio.sleep(0)
        return rows

    async def _made(self, view: FeatureView, given: Sequence[object]) -> list[Row]:
        """Returns rows with features that the view's function makes of raw ones, in a thread: it may take its time."""
        if self._make is None or not view.transform:
            raise CallFailed(Fault(400, f"raw: {view.name} has no function that makes features of raw columns"))
        return await asyncio.to_thread(self._make, view, given, self._now_ms())

    def _now_ms(self) -> int:
        return self._calendar.now_ns() // 1_000_000


class _Nobody:
    """Hears of look-ups, and tells nobody."""

    def served(self, view: str, present: int, others: Iterable[Iterable[str]]) -> None: ...

    def looked_up(self, took_ns: int) -> None: ...

    def unavailable(self, kind: str, count: int) -> None: ...


def writes_of(view: FeatureView, tenant: str, rows: Iterable[Row]) -> Iterator[Write]:
    """Yields what the store has to write for these rows of a tenant."""
    kept = {feature.name: keep_ms(feature) for feature in view.features}
    for row in rows:
        for name, value in row.values.items():
            stored = Stored(row.event_ms, view.version, value)
            yield Write(tenant, view.entity, row.id, name, stored, kept[name])


def _pieces(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some


def _not_written(done: int, whole: int, error: StoreUnavailable) -> Fault:
    text = f"the feature store does not answer ({error}); {done} of {whole} values were written: push the rows again"
    return Fault(503, text, (retry_after(SOON_NS),), SOON_NS)


def _not_kept(error: OSError) -> Fault:
    why = error.strerror or str(error)
    text = f"the rows cannot be kept for the history of features ({why}) and were not written: push them again"
    return Fault(503, text, (retry_after(SOON_NS),), SOON_NS)


def _refusal(error: Refused) -> Fault:
    if error.reason is Reason.UNAVAILABLE:
        return Fault(503, str(error), (retry_after(SOON_NS),), SOON_NS)
    return Fault(404, str(error))
