"""What every call of the inference service answers, as bytes for bytes; knows no server and no connection.

`grpc.py` puts it on grpc.aio. Plans are kept by the bytes of a request's head, as for HTTP; what the server and the
models tell of themselves is the JSON of HTTP, written as messages.
"""

import asyncio
import logging
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import Any, NamedTuple, Protocol

from serving.api.dispatch import Dispatch, Plan, ServedModel
from serving.api.exchange import new_id, now_ns, tell
from serving.api.faults import (
    INTERNAL,
    CallFailed,
    Fault,
    fault_of_error,
    fault_of_outcome,
    left_out,
    not_ready,
    unknown_model,
)
from serving.api.front import ModelList
from serving.api.metadata import model_config, model_metadata, model_statistics, server_metadata, statistics
from serving.api.recall import Recall
from serving.core.backend import Answers, Submitted
from serving.core.outcome import Completed, Outcome, Timings
from serving.protocol.errors import BadMessage, BadOutput
from serving.protocol.grpc_codec import GrpcLayout, GrpcReplyWriter, error_in_stream, in_stream, split
from serving.protocol.pb import HEALTH, SERVICE, decode, encode

_log = logging.getLogger(__name__)
EMPTY_FINAL = "triton_enable_empty_final_response"
NO_TIMINGS = Timings(0, 0, 0, 1)
STREAM_WINDOW = 256  # requests of one stream that wait for their answers; then we stop reading
HEALTH_POLL_S = 1.0
INFER, STREAM, WATCH = f"/{SERVICE}/ModelInfer", f"/{SERVICE}/ModelStreamInfer", f"/{HEALTH}/Watch"
_SERVING, _NOT_SERVING, _SERVICE_UNKNOWN = 1, 2, 3
_LEFT_OUT = {
    "RepositoryModelLoad": "loading at run time (models come and go by deployment)",
    "RepositoryModelUnload": "unloading at run time (models come and go by deployment)",
    "SystemSharedMemoryRegister": "shared memory",
    "CudaSharedMemoryRegister": "shared memory",
    "TraceSetting": "the trace extension",
    "LogSettings": "the logging extension",
}
# Without shared memory no region is registered, and whoever unregisters what it never registered may go on.
_EMPTY = ("SystemSharedMemoryStatus", "SystemSharedMemoryUnregister", "CudaSharedMemoryStatus",
          "CudaSharedMemoryUnregister")  # fmt: skip


class Call(Protocol):
    """What a call brings besides its message."""

    def time_left_ns(self) -> int | None:
        """Until the client's deadline, never below 1; None without one."""
        ...

    def metadata(self, name: str) -> str:
        """The first value under a lower-case name, "" where there is none."""
        ...


class NotHere(Exception):
    """The request names a model that this process does not serve."""

    def __init__(self, name: str, version: str) -> None:
        self.name = name
        self.version = version
        super().__init__(name)


class GrpcDispatch(Dispatch):
    """One model's operations for gRPC's messages."""

    def __init__(self, model: ServedModel) -> None:
        super().__init__(model)
        self._grpc_writer = GrpcReplyWriter(model.name, model.version)

    def plan_head(self, layout: GrpcLayout) -> Plan:
        return self._plan(layout)  # type: ignore[arg-type]  # it reads the same facts of both layouts

    def message(self, plan: Plan, completed: Completed, id: str) -> bytes:
        values: Any = completed.value
        if plan.form.has_classes:
            values = self._classified(plan.form, values)
        return self._grpc_writer.write(plan.form, values, id)


class Planned(NamedTuple):
    """What a head decides: whose request it is, and everything that is done alike for all requests with it."""

    dispatch: GrpcDispatch
    plan: Plan
    layout: GrpcLayout


class Answering(Protocol):
    """A request on its way to its answer, here or in another process."""

    async def result(self) -> bytes:
        """The ModelInferResponse, or whatever the call answers. Raises CallFailed."""
        ...

    def cancel(self) -> None: ...


# Hands a call to the process that serves the model: method, message, model, call.
Relay = Callable[[str, bytes, str, Call], Answering]


class Refused(NamedTuple):
    """A request that was refused before it was submitted."""

    fault: Fault

    async def result(self) -> bytes:
        raise CallFailed(self.fault)

    def cancel(self) -> None:
        """There is nothing to withdraw."""


class Pending(NamedTuple):
    """A submitted request on its way to an answer. began_ns: when its message was there; 0: nobody wants to know."""

    submitted: Submitted
    planned: Planned
    id: str
    call: Call
    tenant: str
    began_ns: int

    async def result(self) -> bytes:
        return self.answer(await self.submitted)

    def cancel(self) -> None:
        self.submitted.cancel()

    def answer(self, outcome: Outcome) -> bytes:
        """A ModelInferResponse. Raises CallFailed. Tells the witnesses."""
        settled_ns = now_ns() if self.began_ns else 0
        status = 200
        try:
            if type(outcome) is not Completed:
                raise CallFailed(fault_of_outcome(outcome))
            return self.planned.dispatch.message(self.planned.plan, outcome, self.id)
        except CallFailed as failed:
            status = failed.fault.status
            raise
        except Exception as error:
            found = fault(error, self.planned.dispatch.model.name)
            status = found.status
            raise CallFailed(found) from None
        finally:
            if self.began_ns:
                self._tell(outcome, status, settled_ns)

    def _tell(self, outcome: Outcome, status: int, settled_ns: int) -> None:
        id = self.id or self.call.metadata("x-request-id") or new_id().decode()
        trace = self.call.metadata("traceparent")
        tell(self.planned.dispatch.model, "grpc", id, self.tenant, status, outcome, trace, self.began_ns, settled_ns)


class PendingGeneration(NamedTuple):
    """A request whose model is generating its answers."""

    answers: Answers
    planned: Planned
    id: str

    def message(self, values: object) -> bytes:
        """A ModelInferResponse. Raises CallFailed."""
        dispatch, plan, _ = self.planned
        try:
            if not isinstance(values, dict):
                raise BadOutput(f"the model gave a {type(values).__name__}, not its outputs by name")
            return dispatch.message(plan, Completed(values, 0, NO_TIMINGS), self.id)
        except Exception as error:
            raise CallFailed(fault(error, dispatch.model.name)) from None


class GrpcService:
    """`served`: the models of this process. `models`, `name`: as `FrontApp` takes them. `tenant_header`: the metadata
    whose value tells tenants apart, "" for one tenant. `relay`: for calls about models that other processes serve."""

    def __init__(
        self,
        served: Iterable[ServedModel],
        models: Callable[[], Awaitable[ModelList]],
        *,
        name: str = "headway",
        tenant_header: str = "",
        relay: Relay | None = None,
    ) -> None:
        self._relay = relay
        self._dispatches = {model.name: GrpcDispatch(model) for model in served}
        self._models = models
        self._name = name
        self._tenant_header = tenant_header.lower()
        self._planned: Recall[Planned] = Recall()
        self._generates = any(dispatch.model.generator for dispatch in self._dispatches.values())
        tells: dict[str, Callable[[bytes], Awaitable[bytes]]] = {
            "ServerLive": self._tell_live,
            "ServerReady": self._tell_ready,
            "ServerMetadata": self._tell_server,
            "RepositoryIndex": self._tell_index,
            "ModelReady": self._tell_model_ready,
            "ModelMetadata": self._tell_metadata,
            "ModelConfig": self._tell_config,
            "ModelStatistics": self._tell_statistics,
        }
        self.tells = {f"/{SERVICE}/{method}": tell for method, tell in tells.items()}
        self.tells |= {f"/{SERVICE}/{method}": _refusing(what) for method, what in _LEFT_OUT.items()}
        self.tells |= {f"/{SERVICE}/{method}": _answer_nothing for method in _EMPTY}
        self.tells[f"/{HEALTH}/Check"] = self._check_health

    # -- inference --------------------------------------------------------------------------------------------

    async def infer(self, message: bytes, call: Call) -> bytes:
        """A ModelInferResponse. Raises CallFailed. Cancelling withdraws the request."""
        return await (await self._begin(message, call)).result()

    def submit(self, message: bytes, call: Call) -> Pending:
        """Raises BadMessage, or NotHere."""
        request = split(message)
        planned = self._planned.get(request.head)
        if planned is None:
            planned = self._plan(request.head)
        plan = planned.plan
        began_ns = now_ns() if planned.dispatch.model.witnesses else 0
        limits = [limit for limit in (plan.timeout_ns, call.time_left_ns()) if limit is not None]
        limit_ns = min(limits, default=None)
        payload = planned.layout.read(request)
        tenant = call.metadata(self._tenant_header) if self._tenant_header else ""
        if plan.place is not None:
            submitted = planned.dispatch.submit_in(plan.place, payload, plan, tenant, limit_ns)
        else:
            submitted = planned.dispatch.model.backend.submit(
                payload, rows=plan.rows, tenant=tenant, priority=plan.priority, timeout_ns=limit_ns
            )
        return Pending(submitted, planned, request.id, call, tenant, began_ns)

    def _plan(self, head: bytes) -> Planned:
        layout = GrpcLayout(head)
        dispatch = self._dispatch(layout.model_name, layout.model_version)
        planned = Planned(dispatch, dispatch.plan_head(layout), layout)
        if layout.is_reusable:
            self._planned.keep(head, planned)
        return planned

    def _dispatch(self, name: str, version: str) -> GrpcDispatch:
        dispatch = self._dispatches.get(name)
        if dispatch is None or version not in ("", dispatch.model.version):
            raise NotHere(name, version)
        return dispatch

    async def stream(
        self, messages: AsyncIterable[bytes], send: Callable[[bytes], Awaitable[None]], call: Call
    ) -> None:
        """Answers a stream of requests in their order; they are submitted as they come, so that they share batches.

        What goes wrong with one request is told in the stream, which goes on; a client that sends the metadata
        `triton_grpc_error: true` wants the stream to end with it instead: then CallFailed.
        """
        waiting: asyncio.Queue[tuple[Answering, bytes] | None] = asyncio.Queue(STREAM_WINDOW)
        window = asyncio.Semaphore(STREAM_WINDOW)
        strict = call.metadata("triton_grpc_error") == "true"

        async def answer() -> None:
            while (item := await waiting.get()) is not None:
                answering, message = item
                try:
                    response = in_stream(await answering.result())
                except CallFailed as failed:
                    if strict:
                        raise
                    response = error_in_stream(failed.fault.text, *_named(message))
                await send(response)

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(answer())
                async for message in messages:
                    if self._generates and (generation := self._generation(message, call)):
                        await window.acquire()
                        group.create_task(self._tell_generation(generation, send, window, strict=strict))
                        continue
                    await waiting.put((await self._begin(message, call), message))
                await waiting.put(None)
        except* CallFailed as failed:
            raise failed.exceptions[0] from None
        finally:
            while not waiting.empty():
                if (item := waiting.get_nowait()) is not None:
                    item[0].cancel()

    def _generation(self, message: bytes, call: Call) -> "PendingGeneration | None":
        """Submits a request for a model that generates; None for any other, and for one that cannot be submitted."""
        try:
            request = split(message)
            planned = self._planned.get(request.head) or self._plan(request.head)
            generator = planned.dispatch.model.generator
            if generator is None:
                return None
            plan = planned.plan
            limits = [limit for limit in (plan.timeout_ns, call.time_left_ns()) if limit is not None]
            payload = planned.layout.read(request)
        except (BadMessage, NotHere):
            return None  # the general way tells why
        answers = generator.generate(payload, priority=plan.priority, timeout_ns=min(limits, default=None))
        return PendingGeneration(answers, planned, request.id)

    async def _tell_generation(
        self,
        generation: "PendingGeneration",
        send: Callable[[bytes], Awaitable[None]],
        window: asyncio.Semaphore,
        *,
        strict: bool,
    ) -> None:
        """Its answers in their order, as they come; those of other requests may come between them, as with Triton."""
        try:
            async for values in generation.answers:
                await send(in_stream(generation.message(values), is_final=False))
            outcome = generation.answers.outcome
            if type(outcome) is not Completed:
                raise CallFailed(fault_of_outcome(outcome))  # type: ignore[arg-type]
            if generation.planned.layout.parameters.get(EMPTY_FINAL):
                name = generation.planned.dispatch.model.name
                empty = {"model_name": name, "model_version": generation.planned.dispatch.model.version}
                await send(in_stream(encode("ModelInferResponse", empty | {"id": generation.id})))
        except CallFailed as failed:
            if strict:
                raise
            name = generation.planned.dispatch.model.name
            await send(error_in_stream(failed.fault.text, name, generation.id))
        finally:
            generation.answers.cancel()
            window.release()

    async def _begin(self, message: bytes, call: Call) -> Answering:
        try:
            return self.submit(message, call)
        except NotHere as absent:
            return await self._elsewhere(absent, INFER, message, call)
        except Exception as error:
            return Refused(fault(error, "a model"))

    async def _elsewhere(self, absent: NotHere, method: str, message: bytes, call: Call) -> Answering:
        """The load balancer sends calls to their model; here come those whose model it could not read, or not reach."""
        for model in await self._models():
            if model["name"] == absent.name and absent.version in ("", model["version"]):
                if model["state"] != "READY":
                    return Refused(not_ready(absent.name, str(model["state"]).lower()))
                if self._relay is not None:
                    return self._relay(method, message, absent.name, call)
        return Refused(unknown_model(absent.name, absent.version))

    # -- what the server and the models tell of themselves ----------------------------------------------------

    async def tell(self, method: str, message: bytes, call: Call) -> bytes:
        """The answer to any other call, by its path. Raises CallFailed."""
        try:
            return await self.tells[method](message)
        except CallFailed:
            raise
        except NotHere as absent:
            answering = await self._elsewhere(absent, method, message, call)
        except Exception as error:
            answering = Refused(fault(error, method))
        return await answering.result()

    async def _tell_live(self, message: bytes) -> bytes:
        return encode("ServerLiveResponse", {"live": True})

    async def _tell_ready(self, message: bytes) -> bytes:
        return encode("ServerReadyResponse", {"ready": await self._all_ready()})

    async def _tell_server(self, message: bytes) -> bytes:
        return encode("ServerMetadataResponse", server_metadata(self._name))

    async def _tell_index(self, message: bytes) -> bytes:
        only_ready = decode("RepositoryIndexRequest", message).ready
        models = [model for model in await self._models() if not only_ready or model["state"] == "READY"]
        entries = [{key: str(model.get(key, "")) for key in ("name", "version", "state", "reason")} for model in models]
        return encode("RepositoryIndexResponse", {"models": entries})

    async def _tell_model_ready(self, message: bytes) -> bytes:
        """As Triton: a model that is unknown is not ready, and that is no error."""
        asked = decode("ModelReadyRequest", message)
        if asked.name in self._dispatches:
            ready = self._dispatch(asked.name, asked.version).model.backend.is_ready()
        else:
            entries = [model for model in await self._models() if model["name"] == asked.name]
            ready = any(entry["state"] == "READY" and asked.version in ("", entry["version"]) for entry in entries)
        return encode("ModelReadyResponse", {"ready": ready})

    async def _tell_metadata(self, message: bytes) -> bytes:
        return encode("ModelMetadataResponse", model_metadata(self._asked("ModelMetadataRequest", message)))

    async def _tell_config(self, message: bytes) -> bytes:
        return encode("ModelConfigResponse", {"config": model_config(self._asked("ModelConfigRequest", message))})

    async def _tell_statistics(self, message: bytes) -> bytes:
        if decode("ModelStatisticsRequest", message).name:
            model = self._asked("ModelStatisticsRequest", message)
            found = [model_statistics(model.name, model.version, model.backend.statistics())]
        else:
            found = [model["statistics"] for model in await self._models() if "statistics" in model]
        return encode("ModelStatisticsResponse", statistics(found))

    def _asked(self, kind: str, message: bytes) -> ServedModel:
        asked = decode(kind, message)
        return self._dispatch(asked.name, asked.version).model

    # -- grpc.health.v1 ---------------------------------------------------------------------------------------

    async def _check_health(self, message: bytes) -> bytes:
        status = await self._health(decode("grpc.health.v1.HealthCheckRequest", message).service)
        if status == _SERVICE_UNKNOWN:
            raise CallFailed(Fault(404, 'unknown service: ask for "", the inference service, or a model\'s name'))
        return _health_message(status)

    async def watch_health(self, message: bytes, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Tells the status, and then every change of it, until it is cancelled."""
        service = decode("grpc.health.v1.HealthCheckRequest", message).service
        told = None
        while True:
            status = await self._health(service)
            if status != told:
                await send(_health_message(status))
                told = status
            await asyncio.sleep(HEALTH_POLL_S)

    async def _health(self, service: str) -> int:
        if service in ("", SERVICE):
            return _SERVING if await self._all_ready() else _NOT_SERVING
        for model in await self._models():
            if model["name"] == service:
                return _SERVING if model["state"] == "READY" else _NOT_SERVING
        return _SERVICE_UNKNOWN

    async def _all_ready(self) -> bool:
        return all(model["state"] == "READY" for model in await self._models())


def fault(error: Exception, model: str) -> Fault:
    """What to tell the client; a bug of ours is logged."""
    found = fault_of_error(error)
    if found is INTERNAL:
        _log.error("a call of %s failed by a bug of ours", model, exc_info=error)
    return found


def _named(message: bytes) -> tuple[str, str]:
    """Model and id of a request that could not be submitted, as far as they can be read."""
    try:
        request = decode("ModelInferRequest", message)
    except BadMessage:
        return "", ""
    return request.model_name, request.id


def _refusing(what: str) -> Callable[[bytes], Awaitable[bytes]]:
    async def refuse(message: bytes) -> bytes:
        raise CallFailed(left_out(what))

    return refuse


async def _answer_nothing(message: bytes) -> bytes:
    return b""


def _health_message(status: int) -> bytes:
    return encode("grpc.health.v1.HealthCheckResponse", {"status": status})
