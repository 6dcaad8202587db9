"""A backend that answers a request from the answer to an equal one, of the same tenant, where there is one.

A request is looked up in the memory of the process, then among the requests that are being computed, then in the store
that replicas share. Equal requests that wait at the same time are one flight: it is computed once, for all of them, and
goes on as long as one of them waits.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import Any, Protocol

from serving.cache.digest import digest, size_of
from serving.cache.kept import Answer, Kept, Key, owned
from serving.cache.shared import SharedAnswers
from serving.core.backend import Backend, Submitted
from serving.core.clock import Calendar, Clock, SystemClock
from serving.core.outcome import Cancelled, Completed, Expired, Failed, Outcome, Timings
from serving.core.statistics import ModelStatistics, total
from serving.protocol.errors import BadTensor
from serving.protocol.packing import pack, unpack
from serving.runtime.settling import Settling
from serving.store.keys import Keys

AT_ONCE_BYTES = 1024 * 1024  # of inputs; the digest of larger ones is computed in a thread
LARGEST_SHARED_BYTES = 1024 * 1024  # of an answer in the shared store
JITTER = 0.1  # of the time to live, so that answers of one moment do not expire in one moment
NOT_COMPUTED = Timings(0, 0, 0, 0)


class Source(StrEnum):
    """The place where the answer to a request was found.

    MEMORY: of this process. SHARED: the store of all replicas. FLIGHT: an equal request was being computed.
    """

    MEMORY = "memory"
    SHARED = "shared"
    FLIGHT = "flight"


class CacheObserver(Protocol):
    """Is told about requests. All methods are called on the event loop.

    Of the requests of a flight, the engine's observer is told about one: it ends like any other request. This one is
    told about all others."""

    def answered(self, tenant: str, source: str, rows: int) -> None:
        """Called when a request has been answered without being computed. source: a `Source`."""

    def missed(self) -> None:
        """Called when a request has to be computed."""

    def ended(self, tenant: str, outcome: Outcome) -> None:
        """Called when a request ended with an outcome other than Completed."""


class CachedRequest(Settling):
    """A request that was submitted to the cache. The fields are the arguments of `Backend.submit`."""

    __slots__ = ("_then", "_waiter", "began_ns", "flight", "more", "outcome", "payload", "rows", "tenant", "withdraw")

    def __init__(
        self, payload: Any, rows: int, tenant: str, more: dict[str, Any], began_ns: int,
        withdraw: "Callable[[CachedRequest], None]",
    ) -> None:  # fmt: skip
        self.payload = payload
        self.rows = rows
        self.tenant = tenant
        self.more = more
        self.began_ns = began_ns
        self.withdraw = withdraw
        self.flight: Flight | None = None
        self.outcome = None
        self._then = None
        self._waiter = None

    def cancel(self) -> None:
        if self.outcome is None:
            self.withdraw(self)


class Flight:
    """Equal requests that wait for one answer.

    clearing: the number of times that the cache had been cleared. first: the request that is computed, for all of
    them; it may have left. None before. submitted: what computes it, None before.
    """

    __slots__ = ("clearing", "first", "key", "requests", "submitted")

    def __init__(self, key: Key, clearing: int) -> None:
        self.key = key
        self.clearing = clearing
        self.requests: list[CachedRequest] = []
        self.first: CachedRequest | None = None
        self.submitted: Submitted | None = None


class CachedBackend:
    """A cache in front of a backend.

    outputs: the names of those to keep, all that the model declares. fingerprint: of the model; answers of another one
    are never found. ttl_s: how long an answer is valid. most_bytes: of answers in memory. shared: None if replicas
    share nothing. keys: of the shared store. random: returns numbers from 0 to 1.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        model: str,
        outputs: Sequence[str],
        fingerprint: bytes,
        ttl_s: float,
        most_bytes: int,
        observer: CacheObserver,
        random: Callable[[], float],
        shared: SharedAnswers | None = None,
        keys: Keys | None = None,
        clock: Clock | None = None,
        calendar: Clock | None = None,
    ) -> None:
        self.kept = Kept(most_bytes)
        self._backend = backend
        self._model = model
        self._outputs = tuple(outputs)
        self._fingerprint = fingerprint
        self._ttl_ms = ttl_s * 1000
        self._observer = observer
        self._random = random
        self._shared = shared
        self._keys = keys or Keys()
        self._clock = clock or SystemClock()
        self._calendar = calendar or Calendar()
        self._flights: dict[Key, Flight] = {}
        self._answered = ModelStatistics()
        self._clearing = 0
        self._looking = 0  # requests that are looked up, and so unknown to the backend
        self._is_leaving = False
        self._has_left = asyncio.Event()

    # -- the backend's methods --------------------------------------------------------------------------------

    def submit(
        self,
        payload: Any,
        *,
        rows: int,
        tenant: str = "",
        priority: int = 0,
        timeout_ns: int | None = None,
        age_ns: int = 0,
        parameters: Mapping[str, object] | None = None,
    ) -> Submitted:
        """Submits one request, see `core.backend.Backend.submit`."""
        more: dict[str, Any] = {"priority": priority, "timeout_ns": timeout_ns}
        if parameters is not None:
            more["parameters"] = parameters
        if self._is_leaving:
            return self._backend.submit(payload, rows=rows, tenant=tenant, age_ns=age_ns, **more)
        request = CachedRequest(payload, rows, tenant, more, self._clock.now_ns() - age_ns, self._withdraw)
        if size_of(payload) <= AT_ONCE_BYTES:
            self._look_up(request, digest(self._fingerprint, payload, parameters))
        else:
            self._looking += 1
            work = partial(digest, self._fingerprint, payload, parameters)
            computing = asyncio.get_running_loop().run_in_executor(None, work)
            computing.add_done_callback(partial(self._digested, request))
        return request

    def statistics(self) -> ModelStatistics:
        """Returns those of the backend, with the requests that were answered without it."""
        return total((self._backend.statistics(), self._answered))

    def is_ready(self) -> bool:
        return self._backend.is_ready()

    # -- clearing and leaving ---------------------------------------------------------------------------------

    async def clear(self, tenant: str | None = None) -> int:
        """Drops the answers in memory, all or those of a tenant. Returns how many.

        Answers that are being computed are not kept either, here or in the shared store."""
        self._clearing += 1
        count = self.kept.clear(tenant)
        if self._shared is not None:
            await self._shared.settle()
        return count

    async def leave(self) -> None:
        """Passes further requests to the backend at once, and waits until it has those that are being looked up."""
        self._is_leaving = True
        if self._looking:
            await self._has_left.wait()

    # -- looking up -------------------------------------------------------------------------------------------

    def _digested(self, request: CachedRequest, computing: "asyncio.Future[bytes]") -> None:
        self._looked()
        if request.outcome is None:
            self._look_up(request, computing.result())

    def _look_up(self, request: CachedRequest, digest: bytes) -> None:
        key = (request.tenant, digest)
        answer = self.kept.get(key, self._now_ms())
        if answer is not None:
            self._answer(request, answer.outputs, Source.MEMORY)
            return
        flight = self._flights.get(key)
        if flight is not None and flight.clearing == self._clearing:
            request.flight = flight
            flight.requests.append(request)
            return
        flight = self._flights[key] = request.flight = Flight(key, self._clearing)
        flight.requests.append(request)
        if self._shared is None:
            self._compute(flight)
        else:
            self._looking += 1
            self._shared.find(
                self._keys.answers(request.tenant, self._model) + digest.hex(), partial(self._found, flight)
            )

    def _found(self, flight: Flight, value: bytes | None) -> None:
        """Called with what the shared store holds."""
        self._looked()
        answer = None if value is None else self._unpacked(value)
        if answer is None:
            self._compute(flight)
            return
        if flight.clearing == self._clearing:
            self.kept.put(flight.key, answer)
        for request in self._landed(flight):
            self._answer(request, answer.outputs, Source.SHARED)

    def _unpacked(self, value: bytes) -> Answer | None:
        try:
            outputs, expires_ms = unpack(value)
        except BadTensor:
            return None
        if tuple(outputs) != self._outputs or expires_ms <= self._now_ms():
            return None
        return owned(outputs, expires_ms)  # whose size in memory is known, and which does not keep the whole value

    def _looked(self) -> None:
        self._looking -= 1
        if self._is_leaving and not self._looking:
            self._has_left.set()

    # -- computing --------------------------------------------------------------------------------------------

    def _compute(self, flight: Flight) -> None:
        if not flight.requests:
            self._land(flight)
            return
        first = flight.first = flight.requests[0]
        self._observer.missed()
        age_ns = self._clock.now_ns() - first.began_ns
        self._answered.cache_miss.add(age_ns)
        flight.submitted = self._backend.submit(
            first.payload, rows=first.rows, tenant=first.tenant, age_ns=age_ns, **first.more
        )
        flight.submitted.then(partial(self._computed, flight))

    def _computed(self, flight: Flight, outcome: Outcome) -> None:
        """Passes an outcome on. If it is due to the first request, its deadline say, the others begin anew."""
        first, flight.first, flight.submitted = flight.first, None, None
        if isinstance(outcome, Completed):
            outcome.cached = False
            self._keep(flight, outcome.value)
            for request in self._landed(flight):
                if request is first:
                    request.settle(outcome)
                else:
                    self._answer(request, outcome.value, Source.FLIGHT)
        elif isinstance(outcome, Failed):
            for request in self._landed(flight):
                self._end(request, outcome, is_known=request is first)
        elif flight.requests:
            if flight.requests[0] is first:
                self._end(flight.requests.pop(0), outcome, is_known=True)
            asyncio.get_running_loop().call_soon(self._compute, flight)
        else:
            self._land(flight)

    def _keep(self, flight: Flight, outputs: Any) -> None:
        if flight.clearing != self._clearing:
            return
        ttl_ms = int(self._ttl_ms * (1 + JITTER * (2 * self._random() - 1)))
        answer = owned({name: outputs[name] for name in self._outputs}, self._now_ms() + ttl_ms)
        self.kept.put(flight.key, answer)
        if self._shared is not None and answer.size <= LARGEST_SHARED_BYTES:
            tenant, digest = flight.key
            key = self._keys.answers(tenant, self._model) + digest.hex()
            self._shared.keep(key, pack(answer.outputs, answer.expires_ms), ttl_ms)

    # -- ends of requests -------------------------------------------------------------------------------------

    def _answer(self, request: CachedRequest, outputs: object, source: Source) -> None:
        waited_ns = self._clock.now_ns() - request.began_ns
        timeout_ns = request.more["timeout_ns"]
        if timeout_ns and waited_ns > timeout_ns:
            self._end(request, Expired(waited_ns), is_known=False)
            return
        self._observer.answered(request.tenant, source, request.rows)
        self._answered.success.add(waited_ns)
        self._answered.cache_hit.add(waited_ns)
        request.settle(Completed(outputs, waited_ns, NOT_COMPUTED, True))

    def _end(self, request: CachedRequest, outcome: Outcome, *, is_known: bool) -> None:
        """Ends a request without an answer. is_known: the backend has counted it."""
        if not is_known:
            self._observer.ended(request.tenant, outcome)
            self._answered.fail.add(0)
        request.settle(outcome)

    def _withdraw(self, request: CachedRequest) -> None:
        """Ends a request as Cancelled. The others of its flight go on; without any, its computation is cancelled."""
        flight = request.flight
        if flight is None or request not in flight.requests:
            self._end(request, Cancelled(), is_known=False)
            return
        flight.requests.remove(request)
        self._end(request, Cancelled(), is_known=request is flight.first)
        if not flight.requests and flight.submitted is not None:
            flight.submitted.cancel()

    def _landed(self, flight: Flight) -> list[CachedRequest]:
        """Ends a flight. Returns its requests."""
        self._land(flight)
        requests, flight.requests = flight.requests, []
        return requests

    def _land(self, flight: Flight) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]

    def _now_ms(self) -> int:
        return self._calendar.now_ns() // 1_000_000
