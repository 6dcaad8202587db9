"""A time limit and a circuit breaker around calls of a store, so that one that hangs or fails costs little."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from models.breaker import Breaker
from serving.core.clock import Clock
from serving.store.base import StoreUnavailable

Answer = TypeVar("Answer")


class Guard:
    """Calls one store. limit_s: the longest that a call may take.

    Of calls that fail while they are under way together, one counts: a moment of silence is one failure, however many
    wait at that moment."""

    def __init__(self, breaker: Breaker, clock: Clock, limit_s: float) -> None:
        self.breaker = breaker
        self._clock = clock
        self._limit_s = limit_s
        self._counted_ns = 0  # when the latest failure that counts ended

    async def call(self, work: Callable[[], Awaitable[Answer]], limit_s: float | None = None) -> Answer:
        """Returns what `work` returns. Raises StoreUnavailable if it raises anything, takes too long, or is not called
        because the breaker is open. limit_s: for this call, if it is another one."""
        limit_s = limit_s or self._limit_s
        if not self.breaker.allows(self._clock.now_ns()):
            wait_s = self.breaker.wait_ns(self._clock.now_ns()) / 1e9
            raise StoreUnavailable("open", f"not asked for {wait_s:.0f} s more, after repeated failures")
        began_ns = self._clock.now_ns()
        try:
            with at_most(limit_s):
                answer = await work()
        except TimeoutError as error:
            self._failed(began_ns)
            raise StoreUnavailable("slow", f"no answer within {limit_s * 1000:.0f} ms") from error
        except Exception as error:
            self._failed(began_ns)
            raise StoreUnavailable(type(error).__name__, str(error) or type(error).__name__) from error
        except BaseException:  # the caller is being ended, which says nothing of the store
            self.breaker.ended(self._clock.now_ns())
            raise
        self.breaker.succeeded()
        return answer

    def _failed(self, began_ns: int) -> None:
        if began_ns >= self._counted_ns:  # a probe always does: it begins after the failure that opened the breaker
            self._counted_ns = self._clock.now_ns()
            self.breaker.failed(self._counted_ns)


def is_late(now_s: float, due_s: float, limit_s: float) -> bool:
    """Returns whether the event loop was busy when a limit was reached, so that an answer may lie unread."""
    return now_s - due_s > limit_s / 2


class at_most:
    """Raises TimeoutError in what it surrounds after this time. If the loop itself was late by then, an answer
    may have arrived unread: it gets one limit more.

    It does what `asyncio.timeout` does, for a third of the CPU: every look-up is in one."""

    __slots__ = ("_cancelling", "_has_expired", "_limit_s", "_loop", "_task", "_timer")

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s

    def __enter__(self) -> None:
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None, "there is nobody to be ended"
        self._task, self._cancelling, self._has_expired = task, task.cancelling(), False
        due_s = self._loop.time() + self._limit_s
        self._timer = self._loop.call_at(due_s, self._end, due_s)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._timer.cancel()
        if self._has_expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _end(self, due_s: float | None) -> None:
        now_s = self._loop.time()
        if due_s is not None and is_late(now_s, due_s, self._limit_s):
            self._timer = self._loop.call_at(now_s + self._limit_s, self._end, None)
        else:
            self._has_expired = True
            self._task.cancel()
