"""Answers the unary calls other than ModelInfer, and grpc.health.v1. Takes and returns encoded messages.

Metadata, configuration and statistics have the same content as the JSON of HTTP, encoded as messages.
"""

import asyncio
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping

from serving.api.admission.gate import Action, Caller, Peer
from serving.api.dispatch import Dispatch
from serving.api.faults import CallFailed, Fault
from serving.api.metadata import model_config, model_metadata, served_statistics, statistics
from serving.api.operations import Operations
from serving.api.served import ServedModel
from serving.api.shared_memory.memory import Kind
from serving.protocol.grpc_codec import parameters_of
from serving.protocol.pb import HEALTH, SERVICE, decode, encode

HEALTH_POLL_S = 1.0
OPEN = frozenset({f"/{SERVICE}/ServerLive", f"/{SERVICE}/ServerReady", f"/{HEALTH}/Check"})  # to everybody
_SERVING, _NOT_SERVING, _SERVICE_UNKNOWN = 1, 2, 3


class NotHere(Exception):
    """The request names a model that this process does not serve."""

    def __init__(self, name: str, version: str) -> None:
        self.name = name
        self.version = version
        super().__init__(name)


class GrpcCalls:
    """The handlers of these calls. They raise CallFailed, BadMessage or NotHere.

    dispatches: the models of this process by name. methods: the paths of all calls.
    """

    def __init__(self, dispatches: Mapping[str, Dispatch], operations: Operations) -> None:
        self._dispatches = dispatches
        self._server = operations
        # Answers by the name of the method.
        reads: dict[str, Callable[[bytes, Peer], Awaitable[bytes]]] = {
            "ServerLive": self._answer_live,
            "ServerReady": self._answer_ready,
            "ServerMetadata": self._answer_server,
            "RepositoryIndex": self._answer_index,
            "ModelReady": self._answer_model_ready,
            "ModelMetadata": self._answer_metadata,
            "ModelConfig": self._answer_config,
            "ModelStatistics": self._answer_statistics,
        }
        changes: dict[str, Callable[[bytes, Peer], Awaitable[bytes]]] = {
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
            "TraceSetting": self._set_trace,
            "LogSettings": self._set_log,
        }
        kinds: tuple[Kind, ...] = ("system", "cuda")
        for kind in kinds:
            reads |= self._region_reads(kind)
            changes |= self._region_changes(kind)
        self._calls = {f"/{SERVICE}/{method}": call for method, call in (reads | changes).items()}
        self._calls[f"/{HEALTH}/Check"] = self._check_health
        self.methods = frozenset(self._calls)

    async def answer(self, method: str, message: bytes, peer: Peer) -> bytes:
        """Answers a call. All but those in `OPEN` need a credential, where callers need one at all."""
        if method not in OPEN:
            self._server.gate.check(peer, Action.READ)
        return await self._calls[method](message, peer)

    async def _answer_live(self, message: bytes, peer: Peer) -> bytes:
        return encode("ServerLiveResponse", {"live": True})

    async def _answer_ready(self, message: bytes, peer: Peer) -> bytes:
        return encode("ServerReadyResponse", {"ready": not await self._server.waiting()})

    async def _answer_server(self, message: bytes, peer: Peer) -> bytes:
        return encode("ServerMetadataResponse", self._server.server())

    async def _answer_index(self, message: bytes, peer: Peer) -> bytes:
        only_ready = decode("RepositoryIndexRequest", message).ready
        return encode(
            "RepositoryIndexResponse", {"models": await self._server.index(self._caller(peer), only_ready=only_ready)}
        )

    async def _answer_model_ready(self, message: bytes, peer: Peer) -> bytes:
        """Answers ModelReady. A model or version that is unknown is not ready, which is no error (as in Triton)."""
        request = decode("ModelReadyRequest", message)
        if not self._server.gate.sees(self._caller(peer), request.name):
            return encode("ModelReadyResponse", {"ready": False})
        if dispatch := self._dispatches.get(request.name):
            model = dispatch.model
            ready = request.version in ("", model.version) and model.backend.is_ready()
        else:
            entries = await self._server.models()
            ready = any(entry.is_ready and entry.is_called(request.name, request.version) for entry in entries)
        return encode("ModelReadyResponse", {"ready": ready})

    async def _answer_metadata(self, message: bytes, peer: Peer) -> bytes:
        return encode("ModelMetadataResponse", model_metadata(self._asked("ModelMetadataRequest", message, peer)))

    async def _answer_config(self, message: bytes, peer: Peer) -> bytes:
        return encode("ModelConfigResponse", {"config": model_config(self._asked("ModelConfigRequest", message, peer))})

    async def _answer_statistics(self, message: bytes, peer: Peer) -> bytes:
        if not decode("ModelStatisticsRequest", message).name:
            return encode("ModelStatisticsResponse", await self._server.statistics(self._caller(peer)))
        model = self._asked("ModelStatisticsRequest", message, peer)
        return encode("ModelStatisticsResponse", statistics([await served_statistics(model)]))

    def _caller(self, peer: Peer) -> Caller:
        return self._server.gate.check(peer, Action.READ)

    def _asked(self, kind: str, message: bytes, peer: Peer) -> ServedModel:
        """Returns the model that a request of this message type names. Raises BadMessage, CallFailed, or NotHere."""
        request = decode(kind, message)
        self._server.gate.check(peer, Action.READ, request.name, request.version)
        dispatch = self._dispatches.get(request.name)
        if dispatch is None or request.version not in ("", dispatch.model.version):
            raise NotHere(request.name, request.version)
        return dispatch.model

    # -- loading of models, shared memory, settings -----------------------------------------------------------

    async def _load(self, message: bytes, peer: Peer) -> bytes:
        request = decode("RepositoryModelLoadRequest", message)
        await self._server.load(request.model_name, parameters_of(request.parameters), peer)
        return b""

    async def _unload(self, message: bytes, peer: Peer) -> bytes:
        request = decode("RepositoryModelUnloadRequest", message)
        await self._server.unload(request.model_name, parameters_of(request.parameters), peer)
        return b""

    def _region_reads(self, kind: Kind) -> dict[str, Callable[[bytes, Peer], Awaitable[bytes]]]:
        prefix = f"{kind.capitalize()}SharedMemory"

        async def status(message: bytes, peer: Peer) -> bytes:
            regions = self._server.region_status(kind, decode(f"{prefix}StatusRequest", message).name, peer)
            return encode(f"{prefix}StatusResponse", {"regions": {region["name"]: region for region in regions}})

        return {f"{prefix}Status": status}

    def _region_changes(self, kind: Kind) -> dict[str, Callable[[bytes, Peer], Awaitable[bytes]]]:
        prefix = f"{kind.capitalize()}SharedMemory"
        facts_of_kind = ("key", "offset", "byte_size") if kind == "system" else ("device_id", "byte_size")

        async def register(message: bytes, peer: Peer) -> bytes:
            request = decode(f"{prefix}RegisterRequest", message)
            facts = {name: getattr(request, name) for name in facts_of_kind}
            if kind == "cuda":
                facts["raw_handle"] = {"b64": b64encode(request.raw_handle).decode()}
            self._server.register_region(kind, request.name, facts, peer)
            return b""

        async def unregister(message: bytes, peer: Peer) -> bytes:
            self._server.unregister_regions(kind, decode(f"{prefix}UnregisterRequest", message).name, peer)
            return b""

        return {f"{prefix}Register": register, f"{prefix}Unregister": unregister}

    async def _set_trace(self, message: bytes, peer: Peer) -> bytes:
        request = decode("TraceSettingRequest", message)
        changes = {name: list(setting.value) or None for name, setting in request.settings.items()}
        settings = await self._server.trace(changes, peer, request.model_name)
        values = {name: {"value": value if isinstance(value, list) else [value]} for name, value in settings.items()}
        return encode("TraceSettingResponse", {"settings": values})

    async def _set_log(self, message: bytes, peer: Peer) -> bytes:
        settings = await self._server.log(parameters_of(decode("LogSettingsRequest", message).settings), peer)
        kinds = {bool: "bool_param", int: "uint32_param", str: "string_param"}
        values = {name: {kinds[type(value)]: value} for name, value in settings.items()}
        return encode("LogSettingsResponse", {"settings": values})

    # -- grpc.health.v1 ---------------------------------------------------------------------------------------

    async def _check_health(self, message: bytes, peer: Peer) -> bytes:
        status = await self._health(decode("grpc.health.v1.HealthCheckRequest", message).service, peer)
        if status == _SERVICE_UNKNOWN:
            raise CallFailed(Fault(404, 'unknown service: ask for "", the inference service, or a model\'s name'))
        return _health_message(status)

    async def watch_health(self, message: bytes, peer: Peer, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Sends the status, and then every change of it, until it is cancelled. Polls every HEALTH_POLL_S seconds.
        Raises BadMessage."""
        service = decode("grpc.health.v1.HealthCheckRequest", message).service
        last_sent = None
        while True:
            status = await self._health(service, peer)
            if status != last_sent:
                await send(_health_message(status))
                last_sent = status
            await asyncio.sleep(HEALTH_POLL_S)

    async def _health(self, service: str, peer: Peer) -> int:
        """Returns the status of the server or of a model. A model's is told to those who see it. Raises CallFailed."""
        if service in ("", SERVICE):
            return _NOT_SERVING if await self._server.waiting() else _SERVING
        if not self._server.gate.sees(self._caller(peer), service):
            return _SERVICE_UNKNOWN
        for model in await self._server.models():
            if model.name == service:
                return _SERVING if model.is_ready else _NOT_SERVING
        return _SERVICE_UNKNOWN


def _health_message(status: int) -> bytes:
    return encode("grpc.health.v1.HealthCheckResponse", {"status": status})
