"""Inference over gRPC, as bytes for bytes; knows no server and no connection.

`grpc.py` puts it on grpc.aio, `grpc_connection.py` on our own HTTP/2. Plans are kept by the bytes of a request's head,
as for HTTP. What is no inference is in `grpc_tells.py`.
"""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from functools import partial

from serving.api.dispatch import Plan, ServedModel
from serving.api.exchange import now_ns
from serving.api.faults import CallFailed, Fault, fault_of_outcome, not_ready, unavailable_model, unknown_model
from serving.api.grpc_pending import (
    TRACEPARENT,
    Answering,
    Call,
    GrpcDispatch,
    Pending,
    PendingGeneration,
    Planned,
    Refused,
    fault,
)
from serving.api.grpc_tells import GrpcTells, NotHere
from serving.api.operations import Operations
from serving.api.recall import Recall
from serving.core.outcome import Cancelled, Completed
from serving.protocol.errors import BadMessage
from serving.protocol.grpc_codec import GrpcLayout, error_in_stream, in_stream, split
from serving.protocol.pb import HEALTH, SERVICE, decode, encode

EMPTY_FINAL = "triton_enable_empty_final_response"
STREAM_WINDOW = 256  # requests of one stream that wait for their answers; then we stop reading
INFER, STREAM, WATCH = f"/{SERVICE}/ModelInfer", f"/{SERVICE}/ModelStreamInfer", f"/{HEALTH}/Watch"

# Hands a call to the process that serves the model: method, message, model, call.
Relay = Callable[[str, bytes, str, Call], Answering]


class GrpcService:
    """`served`: the models of this process. `tenant_header`: the metadata whose value tells tenants apart, "" for one
    tenant. `relay`: for calls about models that other processes serve. `tells`: the calls beside inference."""

    def __init__(
        self,
        served: Iterable[ServedModel],
        operations: Operations,
        *,
        tenant_header: str = "",
        relay: Relay | None = None,
    ) -> None:
        self._relay = relay
        self._dispatches = {model.name: GrpcDispatch(model) for model in served}
        self._server = operations
        self._tenant_header = tenant_header.lower()
        self._planned: Recall[Planned] = Recall()
        self._generates = any(dispatch.model.generator for dispatch in self._dispatches.values())
        self._telling = GrpcTells(self._dispatches, operations)
        self.tells = self._telling.by_method
        self.watch_health = self._telling.watch_health

    # -- inference --------------------------------------------------------------------------------------------

    async def infer(self, message: bytes, call: Call, age_ns: int = 0) -> bytes:
        """A ModelInferResponse. Raises CallFailed. Cancelling withdraws the request."""
        return await (await self._begin(message, call, age_ns)).result()

    def submit(self, message: bytes, call: Call, age_ns: int = 0) -> Pending:
        """Raises BadMessage, or NotHere. age_ns: how old the request is; 0 in a stream, whose stamp is not its own."""
        began_ns = now_ns()
        request = split(message)
        planned = self._plan(request.head)
        plan = planned.plan
        limit_ns = _limit_ns(plan, call)
        payload = planned.dispatch.payload(planned.layout, request)
        tenant = self._tenant(call)
        if plan.place is not None:
            submitted = planned.dispatch.submit_in(plan.place, payload, plan, tenant, limit_ns)
        else:
            submit = planned.dispatch.model.backend.submit
            submit = partial(submit, **plan.more) if plan.more else submit
            submitted = submit(
                payload, rows=plan.rows, tenant=tenant, priority=plan.priority, timeout_ns=limit_ns, age_ns=age_ns
            )
        planned.dispatch.model.wire.decode.add(now_ns() - began_ns)
        trace = call.metadata(TRACEPARENT)
        return Pending(submitted, planned, request.id, call.request_id(), trace, tenant, began_ns)

    def _tenant(self, call: Call) -> str:
        return call.metadata(self._tenant_header) if self._tenant_header else ""

    def _plan(self, head: bytes) -> Planned:
        planned = self._planned.get(head)
        if planned is None:
            layout = GrpcLayout(head)
            dispatch = self._dispatches.get(layout.model_name)
            if dispatch is None or layout.model_version not in ("", dispatch.model.version):
                raise NotHere(layout.model_name, layout.model_version)
            planned = Planned(dispatch, dispatch.plan_head(layout), layout)
            if layout.is_reusable:
                self._planned.keep(head, planned)
        if planned.plan.form.shared:
            return planned._replace(plan=planned.dispatch.placed(planned.plan))
        return planned

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
        began_ns = now_ns()
        try:
            request = split(message)
            planned = self._plan(request.head)
            generator = planned.dispatch.model.generator
            if generator is None:
                return None
            plan = planned.plan
            payload = planned.dispatch.payload(planned.layout, request)
        except (BadMessage, NotHere):
            return None  # the general way tells why
        tenant = self._tenant(call)
        limit_ns = _limit_ns(plan, call)
        answers = generator.generate(payload, tenant=tenant, priority=plan.priority, timeout_ns=limit_ns, **plan.more)
        planned.dispatch.model.wire.decode.add(now_ns() - began_ns)
        return PendingGeneration(answers, planned, request.id, call, tenant, began_ns)

    async def _tell_generation(
        self,
        generation: "PendingGeneration",
        send: Callable[[bytes], Awaitable[None]],
        window: asyncio.Semaphore,
        *,
        strict: bool,
    ) -> None:
        """Its answers in their order, as they come; those of other requests may come between them, as with Triton."""
        ended: Fault | None = fault_of_outcome(Cancelled())
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
            ended = None
        except CallFailed as failed:
            ended = failed.fault
            if strict:
                raise
            name = generation.planned.dispatch.model.name
            await send(error_in_stream(failed.fault.text, name, generation.id))
        finally:
            generation.answers.cancel()
            generation.tell(ended)
            window.release()

    async def _begin(self, message: bytes, call: Call, age_ns: int = 0) -> Answering:
        try:
            return self.submit(message, call, age_ns)
        except NotHere as absent:
            return await self._elsewhere(absent, INFER, message, call)
        except Exception as error:
            return Refused(fault(error, "a model"))

    async def _elsewhere(self, absent: NotHere, method: str, message: bytes, call: Call) -> Answering:
        """The load balancer sends calls to their model; here come those whose model it could not read, or not reach."""
        for model in await self._server.models():
            if model["name"] == absent.name and absent.version in ("", model["version"]):
                if not model.get("wanted", True):
                    return Refused(unavailable_model(absent.name))
                if model["state"] != "READY":
                    return Refused(not_ready(absent.name, str(model["state"])))
                if self._relay is not None:
                    return self._relay(method, message, absent.name, call)
        return Refused(unknown_model(absent.name, absent.version))

    # -- everything else --------------------------------------------------------------------------------------

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


def _named(message: bytes) -> tuple[str, str]:
    """Model and id of a request that could not be submitted, as far as they can be read."""
    try:
        request = decode("ModelInferRequest", message)
    except BadMessage:
        return "", ""
    return request.model_name, request.id


def _limit_ns(plan: Plan, call: Call) -> int | None:
    """The nearer of the request's own limit and what is left of its call's."""
    own, left = plan.timeout_ns, call.time_left_ns()
    if own is None:
        return left
    return own if left is None or own < left else left
