"""The way in which an outcome reaches whoever submitted a request: a callback, or a task that awaits it."""

import logging
from abc import ABC, abstractmethod
from asyncio import CancelledError, Future, get_running_loop
from collections.abc import Callable, Generator
from typing import Any

from serving.core.outcome import Outcome

_log = logging.getLogger(__name__)


class Settling(ABC):
    """A request that is settled exactly once. Subclasses set the three attributes to None. Use it on the event loop.

    Awaiting it returns the `Outcome`. It raises only CancelledError, if the awaiting task is cancelled; that withdraws
    the request. A caller without a task registers a callback with `then` instead.
    """

    __slots__ = ()
    outcome: Outcome | None
    _then: Callable[[Outcome], None] | None
    _waiter: "Future[None] | None"

    @abstractmethod
    def cancel(self) -> None:
        """Withdraws the request: it ends as Cancelled unless it has ended already."""

    def __await__(self) -> Generator[Any, None, Outcome]:
        if self.outcome is None:
            if self._waiter is None:
                self._waiter = get_running_loop().create_future()  # type: ignore[misc]  # a slot of the subclass
            try:
                yield from self._waiter
            except CancelledError:
                self.cancel()
                raise
        assert self.outcome is not None
        return self.outcome

    def then(self, callback: Callable[[Outcome], None]) -> None:
        """Registers the one callback, see `core.backend.Submitted.then`."""
        if self.outcome is None:
            assert self._then is None, "a request has one callback at most"
            self._then = callback  # type: ignore[misc]  # a slot of the subclass
        else:
            callback(self.outcome)

    def settle(self, outcome: Outcome) -> None:
        """Sets the outcome, calls the callback and wakes the awaiting task.

        An exception of the callback is logged, so that it does not affect the other requests of the batch.
        """
        assert self.outcome is None, "a request is answered once"
        self.outcome = outcome  # type: ignore[misc]  # a slot of the subclass
        if self._then is not None:
            try:
                self._then(outcome)
            except Exception:
                _log.exception("the callback of a request failed")
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
