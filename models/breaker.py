"""A circuit breaker: after repeated failures it stops calling what fails, and then tries it with a single call.

`Breaker` decides, `Guarded` calls. In the code of a model that asks another service:

    self.rates = Guarded(ask_rates, default=0.0)      # in __init__
    answer = self.rates(currency)                     # in prepare or forward
    answer.value, answer.is_fallback                  # return the second as an output, say, so that clients see it
"""

import enum
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
MOST_FAILURES = 5
OPEN_NS = 30_000_000_000
JITTER = 0.1  # of the time that it stays open, so that replicas do not all probe at once


class State(enum.Enum):
    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


class Breaker:
    """The breaker of one callee. More than `most_failures` failures in a row open it for `open_ns` by the clock.

    Whoever was allowed a call reports its end exactly once: `succeeded`, `failed`, or `ended` for one that says nothing
    of the callee, because the caller had made a mistake or gave up.

    random: returns numbers from 0 to 1, for the jitter.
    """

    def __init__(
        self, random: Callable[[], float], *, most_failures: int = MOST_FAILURES, open_ns: int = OPEN_NS
    ) -> None:
        self.state = State.CLOSED
        self._random = random
        self._most_failures = most_failures
        self._open_ns = open_ns
        self._failures = 0
        self._until_ns = 0

    def allows(self, now_ns: int) -> bool:
        """Returns whether to call now. While open it is False, and after that True once: for the probe.

        A probe whose end is never reported is given up after the time that the breaker stays open.
        """
        if self.state is State.CLOSED:
            return True
        if now_ns < self._until_ns:
            return False
        self.state = State.PROBING
        self._until_ns = now_ns + self._open_ns
        return True

    def succeeded(self) -> None:
        """Records a success. While it is open, one of a call from before does not close it: only a probe does."""
        if self.state is not State.OPEN:
            self.state = State.CLOSED
            self._failures = 0

    def failed(self, now_ns: int) -> None:
        self._failures += 1
        if self.state is State.PROBING or (self.state is State.CLOSED and self._failures > self._most_failures):
            self.state = State.OPEN
            self._until_ns = now_ns + int(self._open_ns * (1 + JITTER * self._random()))

    def ended(self, now_ns: int) -> None:
        """Records an end that says nothing of the callee. If it was the probe, the next call is the probe."""
        if self.state is State.PROBING:
            self.state = State.OPEN
            self._until_ns = now_ns

    def wait_ns(self, now_ns: int) -> int:
        """Returns how long no call is allowed; 0 if one is."""
        return 0 if self.state is State.CLOSED else max(0, self._until_ns - now_ns)


class Unreachable(Exception):
    """The service was not called, since it has failed repeatedly, and there is no answer to give instead."""


class Answer(NamedTuple, Generic[T]):
    """The answer of a guarded call. is_fallback: whether it is an earlier answer or the default, not a fresh one."""

    value: T
    is_fallback: bool


_NONE: Any = object()


class Guarded(Generic[P, T]):
    """A function that calls a service, behind a breaker. May be called from any thread.

    default: the answer in place of one that fails, if no earlier answer to equal arguments is known; without it, the
        error is raised. remembers: of how many arguments the latest answer is kept, if they can be hashed.
    mistakes: errors that the caller has caused. They are raised, and say nothing of the service.
    now_ns, random: the clock, in nanoseconds, and the source of the jitter; for tests.
    """

    def __init__(
        self,
        call: Callable[P, T],
        *,
        default: T = _NONE,
        remembers: int = 1000,
        mistakes: tuple[type[Exception], ...] = (),
        most_failures: int = MOST_FAILURES,
        open_s: float = OPEN_NS / 1e9,
        now_ns: Callable[[], int] = time.monotonic_ns,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._call = call
        self._default = default
        self._remembers = remembers
        self._mistakes = mistakes
        self._now_ns = now_ns
        self._breaker = Breaker(random, most_failures=most_failures, open_ns=int(open_s * 1e9))
        self._latest: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = threading.Lock()  # held only between calls

    @property
    def state(self) -> State:
        return self._breaker.state

    def __call__(self, *given: P.args, **named: P.kwargs) -> Answer[T]:
        """Calls the service or answers in its place. Without a default, raises what the call raises, or Unreachable."""
        with self._lock:
            may = self._breaker.allows(self._now_ns())
        if not may:
            return self._instead(given, named, Unreachable("not called, after repeated failures"))
        try:
            value = self._call(*given, **named)
        except self._mistakes:
            with self._lock:
                self._breaker.ended(self._now_ns())
            raise
        except Exception as error:
            with self._lock:
                self._breaker.failed(self._now_ns())
            return self._instead(given, named, error)
        except BaseException:
            with self._lock:
                self._breaker.ended(self._now_ns())
            raise
        with self._lock:
            self._breaker.succeeded()
            self._keep(given, named, value)
        return Answer(value, False)

    def _instead(self, given: tuple[Any, ...], named: dict[str, Any], error: Exception) -> Answer[T]:
        key = _key(given, named)
        with self._lock:
            value = self._default if key is None else self._latest.get(key, self._default)
        if value is _NONE:
            raise error
        return Answer(value, True)

    def _keep(self, given: tuple[Any, ...], named: dict[str, Any], value: T) -> None:
        key = _key(given, named)
        if key is None or not self._remembers:
            return
        self._latest[key] = value
        self._latest.move_to_end(key)
        if len(self._latest) > self._remembers:
            self._latest.popitem(last=False)


def _key(given: tuple[Any, ...], named: dict[str, Any]) -> Hashable | None:
    """Returns the key of a call's arguments, None if they cannot be hashed."""
    key = (given, tuple(sorted(named.items())))
    try:
        hash(key)
    except TypeError:
        return None
    return key
