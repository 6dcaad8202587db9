"""The caller's hold on a submitted request: await it for the outcome, cancel the awaiting task to withdraw."""

from asyncio import CancelledError, Future
from collections.abc import Callable, Generator
from typing import Any

from serving.core.outcome import Cancelled, Outcome
from serving.core.request import Request


class Ticket:
    """Settles exactly once. Awaiting it yields the `Outcome`; it raises nothing but the awaiter's own cancellation."""

    __slots__ = ("_future", "_withdraw", "request")

    def __init__(self, request: Request, future: Future[Outcome], withdraw: Callable[[Request], None]) -> None:
        self.request = request
        self._future = future
        self._withdraw = withdraw

    def __await__(self) -> Generator[Any, None, Outcome]:
        try:
            return (yield from self._future)
        except CancelledError:
            self._withdraw(self.request)
            raise

    def then(self, callback: Callable[[Outcome], None]) -> None:
        """See `core.backend.Submitted.then`."""
        self._future.add_done_callback(lambda done: callback(done.result()))

    def cancel(self) -> None:
        """Withdraws the request: it ends as Cancelled, unless it has ended already."""
        self._withdraw(self.request)

    def done(self) -> bool:
        return self._future.done()

    def settle(self, outcome: Outcome) -> None:
        if not self._future.done():
            self._future.set_result(outcome)
        else:
            assert isinstance(outcome, Cancelled), f"{self.request.id} answered twice"
