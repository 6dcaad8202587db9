"""Runs the steps of generations: in turn in one thread, or, for a model that waits instead of computing, concurrently
in an event loop of their own.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar, cast

from models.base import GeneratingModel, Tensors
from serving.core.clock import Clock
from serving.runtime.answers import as_model_error
from serving.runtime.calls import Call, CallThreads

NO_MORE = object()
CANCEL_LIMIT_S = 5.0  # how long cancelled steps may take to end when the model is closed
POLL_S = 0.01  # polling interval while a cancelled step still runs
T = TypeVar("T")
AnyIterator = Iterator[Tensors] | AsyncIterator[Tensors]


class Step(NamedTuple):
    """The result of a step: an iterator over answers (of `begin`), an answer, or `NO_MORE`.

    took_ns: the time of the step itself, without waiting for other steps.
    """

    result: Any
    took_ns: int


class Steps(Protocol):
    """Runs the steps of one model. A step raises what the model raises; an exception that a future cannot hold becomes
    a ModelError. Cancelling the task that awaits a step withdraws it, unless it has begun."""

    def open(self) -> None: ...

    def close(self) -> None: ...

    async def begin(self, inputs: Tensors, more: Mapping[str, object]) -> Step:
        """Calls the model's `generate`; the step's result is the `answers` argument of the other methods.

        more: arguments in addition to the inputs.
        """
        ...

    async def next_of(self, answers: Any) -> Step:
        """Returns a step with the next answer, or with `NO_MORE`."""
        ...

    def end(self, answers: Any) -> None:
        """Closes the generator after the step that may still run, so that its `finally` blocks release resources."""
        ...


class StepsInTurn:
    """`Steps` of a model whose `generate` is a plain generator, in one thread.

    limit_s: how long a step may take. on_stuck: called on the event loop if one takes longer.
    """

    def __init__(self, model: GeneratingModel, clock: Clock, *, limit_s: float, on_stuck: Callable[[], None]) -> None:
        self._model = model
        self._clock = clock
        self._line: dict[Call, None] = {}
        names = [f"lane-{model.spec.name}"]
        self._thread = CallThreads(names, clock, self._next_call, limit_s=limit_s, on_stuck=on_stuck)

    def open(self) -> None:
        self._thread.open()

    def close(self) -> None:
        self._thread.close()

    async def begin(self, inputs: Tensors, more: Mapping[str, object]) -> Step:
        return await self._in_turn(lambda: iter(cast(Iterator[Tensors], self._model.generate(_own(inputs), **more))))

    async def next_of(self, answers: Iterator[Tensors]) -> Step:
        return await self._in_turn(lambda: next(answers, NO_MORE))

    def end(self, answers: Iterator[Tensors]) -> None:
        close = getattr(answers, "close", None)
        if close is not None:
            self._enter(Call(lambda: self._timed(close), lambda ended: None))

    async def _in_turn(self, work: Callable[[], Any]) -> Step:
        done: asyncio.Future[tuple[Step, Exception | None]] = asyncio.get_running_loop().create_future()
        call = Call(lambda: self._timed(work), done.set_result)
        self._enter(call)
        try:
            step, error = await done
        except asyncio.CancelledError:
            self._line.pop(call, None)
            call.forget()
            raise
        if error is not None:
            raise error
        return step

    def _enter(self, call: Call) -> None:
        self._line[call] = None
        self._thread.fill()

    def _next_call(self) -> Call | None:
        call = next(iter(self._line), None)
        if call is not None:
            del self._line[call]
        return call

    def _timed(self, work: Callable[[], Any]) -> tuple[Step, Exception | None]:
        began_ns = self._clock.now_ns()
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:  # SystemExit too: it would end the lane's thread unnoticed
            error = bearable(raised)
        return Step(result, self._clock.now_ns() - began_ns), error


class StepsSideBySide:
    """`Steps` of a model whose `generate` is an async generator, in an event loop and thread of their own."""

    def __init__(self, model: GeneratingModel, clock: Clock, *, limit_s: float, on_stuck: Callable[[], None]) -> None:
        self._model = model
        self._clock = clock
        self._limit_s = limit_s
        self._on_stuck = on_stuck

    def open(self) -> None:
        self._steps_loop = asyncio.new_event_loop()
        threading.Thread(target=self._work, name=f"lane-{self._model.spec.name}", daemon=True).start()

    def close(self) -> None:
        self._steps_loop.call_soon_threadsafe(self._steps_loop.stop)

    def _work(self) -> None:
        self._steps_loop.run_forever()
        tasks = asyncio.all_tasks(self._steps_loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self._steps_loop.run_until_complete(asyncio.wait(tasks, timeout=CANCEL_LIMIT_S))
        self._steps_loop.run_until_complete(self._steps_loop.shutdown_asyncgens())
        self._steps_loop.close()

    async def begin(self, inputs: Tensors, more: Mapping[str, object]) -> Step:
        return await self._there(self._begun(inputs, more))

    async def next_of(self, answers: AsyncIterator[Tensors]) -> Step:
        return await self._there(anext(answers, NO_MORE))

    def end(self, answers: Any) -> None:
        asyncio.run_coroutine_threadsafe(self._closed(answers), self._steps_loop)

    async def _there(self, work: Any) -> Step:
        step = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._timed(work), self._steps_loop))
        try:
            async with asyncio.timeout(self._limit_s):
                result, error = await step
        except TimeoutError:
            self._on_stuck()
            raise
        if error is not None:
            raise error
        return result

    async def _timed(self, work: Any) -> tuple[Step, Exception | None]:
        began_ns = self._clock.now_ns()
        result, error = None, None
        try:
            result = await work
        except BaseException as raised:
            task = asyncio.current_task()
            if isinstance(raised, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # the client cancelled it; any other CancelledError comes from the model and is its failure
            error = bearable(raised)
        return Step(result, self._clock.now_ns() - began_ns), error

    async def _begun(self, inputs: Tensors, more: Mapping[str, object]) -> AsyncIterator[Tensors]:
        return aiter(cast(AsyncIterator[Tensors], self._model.generate(_own(inputs), **more)))

    async def _closed(self, answers: Any) -> None:
        while getattr(answers, "ag_running", False):  # noqa: ASYNC110 - until the cancelled step has ended
            await asyncio.sleep(POLL_S)
        close = getattr(answers, "aclose", None)
        if close is not None:
            await self._timed(close())


def _own(inputs: Tensors) -> Tensors:
    """Copies read-only inputs, so that the model may write into them without changing a client's memory.

    Compared with a generation, the copy costs nothing.
    """
    return {name: array if array.flags.writeable else array.copy() for name, array in inputs.items()}


def steps_of(model: GeneratingModel, clock: Clock, *, limit_s: float, on_stuck: Callable[[], None]) -> Steps:
    """Returns the `Steps` that fit the model: concurrent if it waits, otherwise in turn."""
    kind = StepsSideBySide if model.waits else StepsInTurn
    return kind(model, clock, limit_s=limit_s, on_stuck=on_stuck)


def bearable(error: BaseException) -> Exception:
    """Returns the error itself if a future can hold it, otherwise (StopIteration, SystemExit ...) a ModelError."""
    is_bearable = isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration)
    return cast(Exception, error) if is_bearable else as_model_error(error)
