"""A backend that fills inputs with features: clients send ids of entities, the model gets numbers."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from math import isinf
from typing import Any, Protocol

import numpy as np

from serving.core.backend import Backend, Submitted
from serving.core.clock import Clock, SystemClock
from serving.core.errors import FeaturesUnavailable, InvalidInput, ServingError
from serving.core.outcome import Cancelled, Completed, Failed, Outcome, Rejected
from serving.core.outcome import Reason as Reject
from serving.core.statistics import ModelStatistics
from serving.features.binding import Binding, Column
from serving.features.reading import Answers, Reason, Selection
from serving.features.requests import Refused, check_required, lacked
from serving.features.rows import BadField, id_of
from serving.runtime.settling import Settling

_log = logging.getLogger(__name__)
_KINDS = {"FP32": np.float32, "FP64": np.float64, "BYTES": np.object_}


class Reading(Protocol):
    """Reads features. `gateway.features.OnlineFeatures` does."""

    async def connect(self) -> None:
        """Opens a connection ahead of the first request, if it can be had."""
        ...

    async def answers(self, tenant: str, asked: Selection, ids: Sequence[str]) -> list[Answers]:
        """Returns, for each entity, the answer for each of these features."""
        ...


class BoundRequest(Settling):
    """A request whose features are read first.

    submitted: at the backend behind, None before. asks: whether its outcome is to say which features were not known.
    """

    __slots__ = ("_then", "_waiter", "_withdraw", "asks", "outcome", "submitted")

    def __init__(self, withdraw: "Callable[[BoundRequest], None]", asks: bool) -> None:
        self.submitted: Submitted | None = None
        self.asks = asks
        self.outcome = None
        self._withdraw = withdraw
        self._then = None
        self._waiter = None

    def cancel(self) -> None:
        if self.outcome is not None:
            return
        if self.submitted is not None:
            self.submitted.cancel()
        else:
            self._withdraw(self)


class FeatureBackend:
    """Features in front of a backend.

    datatypes: those of the inputs that are filled. most_rows: in a request; larger ones are rejected, as the backend
    behind would, before anything is read for them. ended: is told about requests that end without reaching the backend
    behind, on the event loop.
    """

    def __init__(
        self,
        backend: Backend,
        binding: Binding,
        features: Reading,
        *,
        datatypes: Mapping[str, str],
        most_rows: int,
        ended: Callable[[str, Outcome], None],
        clock: Clock | None = None,
    ) -> None:
        self._backend = backend
        self._binding = binding
        self._selections = binding.selections()
        self._features = features
        self._kinds = {name: _KINDS[datatypes[name]] for name in binding.inputs}
        self._most_rows = most_rows
        self._ended = ended
        self._clock: Clock = clock or SystemClock()
        self._reading: dict[BoundRequest, tuple[asyncio.Task[None], str]] = {}  # with the tenant

    async def connect(self) -> None:
        """Opens the connection by which features are read, if it can be had."""
        await self._features.connect()

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
        feature_reasons: bool = False,
    ) -> Submitted:
        """Submits one request, see `core.backend.Backend.submit`. The time to read features counts as age.

        feature_reasons: the outcome says of which features no valid value was known."""
        more: dict[str, Any] = {"rows": rows, "tenant": tenant, "priority": priority, "timeout_ns": timeout_ns}
        if parameters is not None:
            more["parameters"] = parameters
        request = BoundRequest(self._withdraw, feature_reasons)
        if rows > self._most_rows:
            rejected = Rejected(Reject.TOO_LARGE, retry_after_ns=0, limit=self._most_rows)
            self._ended(tenant, rejected)
            request.settle(rejected)
            return request
        task = asyncio.get_running_loop().create_task(self._serve(request, payload, age_ns, more))
        self._reading[request] = task, tenant
        return request

    def statistics(self) -> ModelStatistics:
        return self._backend.statistics()

    def is_ready(self) -> bool:
        return self._backend.is_ready()

    async def leave(self) -> None:
        """Waits until the backend behind has the requests whose features are being read."""
        if self._reading:
            await asyncio.wait([task for task, _ in self._reading.values()])

    async def _serve(self, request: BoundRequest, payload: Any, age_ns: int, more: dict[str, Any]) -> None:
        began_ns = self._clock.now_ns()
        tenant: str = more["tenant"]
        try:
            filled, told = await self._filled(payload, tenant)
        except ServingError as error:
            self._end(request, tenant, Failed(error))
            return
        except Exception:
            _log.exception("filling inputs with features failed because of a bug in the server")
            self._end(request, tenant, Failed(ServingError("internal error")))
            return
        del self._reading[request]
        request.submitted = self._backend.submit(filled, age_ns=age_ns + self._clock.now_ns() - began_ns, **more)
        if not request.asks:
            request.submitted.then(request.settle)
            return
        lacking = lacked(self._selections, told)

        def settle(outcome: Outcome) -> None:
            if isinstance(outcome, Completed):
                outcome.features = lacking
            request.settle(outcome)

        request.submitted.then(settle)

    def _withdraw(self, request: BoundRequest) -> None:
        task, tenant = self._reading[request]
        task.cancel()
        self._end(request, tenant, Cancelled())

    def _end(self, request: BoundRequest, tenant: str, outcome: Outcome) -> None:
        del self._reading[request]
        self._ended(tenant, outcome)
        request.settle(outcome)

    async def _filled(self, payload: Mapping[str, Any], tenant: str) -> tuple[dict[str, Any], list[list[Answers]]]:
        """Returns the inputs of the model, and the answers for each view. Raises InvalidInput, FeaturesUnavailable."""
        name = self._binding.entity_input
        ids = [_id(value, f"{name}[{row}]") for row, value in enumerate(payload[name].ravel().tolist())]
        told = await asyncio.gather(*(self._features.answers(tenant, asked, ids) for asked in self._selections))
        columns: dict[tuple[str, str], Sequence[object]] = {}
        for asked, answers in zip(self._selections, told, strict=True):
            try:
                check_required(asked, ids, answers)
            except Refused as error:
                if error.reason is Reason.UNAVAILABLE:
                    raise FeaturesUnavailable(str(error)) from None
                raise InvalidInput(str(error)) from None
            for feature, column in zip(asked.names, zip(*(one.values for one in answers), strict=True), strict=True):
                columns[asked.view.name, feature] = column
        filled = {other: array for other, array in payload.items() if other != name}
        for other, bound_columns in self._binding.inputs.items():
            filled[other] = _array(bound_columns, columns, self._kinds[other])
        return filled, told


def _id(value: object, path: str) -> str:
    try:
        return id_of(value.decode() if isinstance(value, bytes) else value, path)
    except UnicodeDecodeError:
        raise InvalidInput(f"{path}: the id of an entity is no text in UTF-8") from None
    except BadField as error:
        raise InvalidInput(str(error)) from None


def _array(columns: Sequence[Column], values: Mapping[tuple[str, str], Sequence[object]], kind: type) -> Any:
    """Returns the array of an input, `[rows, columns]`."""
    chosen = [values[column.view.name, column.feature.name] for column in columns]
    if kind is np.object_:
        chosen = [[str(value).encode() for value in column] for column in chosen]
    with np.errstate(over="ignore"):
        array: Any = np.array(list(zip(*chosen, strict=True)), dtype=kind)
    if kind is np.float32:
        _check_range(array, columns, chosen)
    return array


def _check_range(array: Any, columns: Sequence[Column], chosen: Sequence[Sequence[Any]]) -> None:
    """Raises InvalidInput for a feature that only became infinite in the precision of the input."""
    for row, index in zip(*np.nonzero(np.isinf(array)), strict=True):
        value = chosen[index][row]
        if not isinf(value):
            name = f"{columns[index].view.name}.{columns[index].feature.name}"
            raise InvalidInput(f"{name}: {value!r} does not fit into the input, which is FP32")
