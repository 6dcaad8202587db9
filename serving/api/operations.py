"""The operations of a server other than inference, for both wires. Answers have the form of the JSON sent over HTTP.

An operation that a setting switches off is refused with the name of that setting. Refusals are raised as CallFailed or
BadMessage.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from serving.api.admission.gate import ANYBODY, Action, Caller, Gate, Peer
from serving.api.admission.local_gate import LocalGate
from serving.api.dispatch import SHARED_MEMORY_IS_OFF
from serving.api.entry import ModelEntry
from serving.api.faults import CallFailed, left_out, unknown_model
from serving.api.features import Features
from serving.api.metadata import server_metadata, statistics
from serving.api.releases import Releases
from serving.api.shared_memory.memory import Kind
from serving.api.shared_memory.regions import NO_DRIVER, Regions, unknown_region
from serving.protocol.errors import BadMessage

Settings = dict[str, Any]
MODEL_CONTROL_IS_OFF = "loading and unloading are off on this server; the setting server.model_control allows them"
# No model depends on another here, so this parameter is accepted and has no effect.
_WITHOUT_EFFECT = ("unload_dependents",)


class ModelControl(Protocol):
    """Loads and unloads models at run time. Both methods raise CallFailed with the reason."""

    async def load(self, name: str) -> None:
        """Deploys a model of the settings, or replaces its replicas. Returns when the new replicas are ready."""
        ...

    async def unload(self, name: str) -> None:
        """Stops a model. Returns when it accepts no more requests; its replicas may still be draining."""
        ...


class Switches(Protocol):
    """Reads and changes the settings of tracing and logging, which have Triton's names.

    Both methods return the settings after the changes have been made in all replicas. They raise BadMessage for a
    setting that has no effect here, or for an invalid value.
    """

    async def trace(self, changes: Mapping[str, Any], model: str = "") -> Settings:
        """Changes and returns the trace settings of this model; of all models for ""."""
        ...

    async def log(self, changes: Mapping[str, Any]) -> Settings:
        """Changes and returns the log settings of the server."""
        ...


class Routes(Protocol):
    """Reads and changes which version of a model answers requests that name none. Both methods raise CallFailed."""

    def told(self, model: str) -> dict[str, Any]:
        """Returns the route of a model, and its versions."""
        ...

    async def change(self, model: str, wanted: Mapping[str, Any], by: str) -> dict[str, Any]:
        """Changes the route and returns it. by: who asks, "" if unknown. Raises BadMessage."""
        ...


class Operations:
    """The operations that a server offers.

    models: returns the entry of every model.
    counts: returns each model's entry of `model_stats`.
    strict_readiness: the server is ready only while every wanted model is ready; otherwise it always is.
    regions, control, switches: None if the settings do not allow these operations.
    features: None if the settings declare no feature views. routes: None in a process that knows none.
    releases: None if no registry can be kept.
    gate: decides which callers may do what.
    """

    def __init__(
        self,
        models: Callable[[], Awaitable[Sequence[ModelEntry]]],
        *,
        name: str = "headway",
        counts: Callable[[], Awaitable[list[dict[str, Any]]]] | None = None,
        strict_readiness: bool = True,
        regions: Regions | None = None,
        control: ModelControl | None = None,
        switches: Switches | None = None,
        features: Features | None = None,
        releases: Releases | None = None,
        routes: Routes | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.models = models
        self.name = name
        self._counts = counts
        self._strict_readiness = strict_readiness
        self._regions = regions
        self._control = control
        self._switches = switches
        self.features = features
        self.releases = releases
        self._routes = routes
        self.gate: Gate = gate or LocalGate()

    # -- server and models ----------------------------------------------------------------------------------------

    def server(self) -> dict[str, Any]:
        offered = {
            "model_repository": self._control,
            "model_repository(unload_dependents)": self._control,
            "system_shared_memory": self._regions,
            "cuda_shared_memory": self._regions if self._regions and self._regions.has_cuda else None,
            "logging": self._switches,
            "trace": self._switches,
            "features": self.features,
            "releases": self.releases,
            "routes": self._routes,
        }
        return server_metadata(self.name, [extension for extension, there in offered.items() if there is not None])

    async def waiting(self) -> list[str]:
        """Returns the names of the models that keep the server from being ready."""
        if not self._strict_readiness:
            return []
        return [model.name for model in await self.models() if model.wanted and not model.is_ready]

    async def seen(self, caller: Caller) -> list[ModelEntry]:
        """Returns the models that exist for this caller."""
        return [model for model in await self.models() if self.gate.sees(caller, model.name)]

    async def index(self, caller: Caller = ANYBODY, *, only_ready: bool) -> list[dict[str, str]]:
        """Returns the repository index, as this caller sees it."""
        return [
            {"name": model.name, "version": model.version, "state": model.state, "reason": model.reason}
            for model in await self.seen(caller)
            if not only_ready or model.is_ready
        ]

    async def statistics(self, caller: Caller = ANYBODY) -> dict[str, Any]:
        """Returns the statistics of all models that exist for this caller."""
        counts = await self._counts() if self._counts else []
        return statistics([entry for entry in counts if self.gate.sees(caller, entry["name"])])

    # -- loading and unloading ------------------------------------------------------------------------------------

    async def load(self, name: str, parameters: Mapping[str, Any], peer: Peer) -> None:
        for given in parameters:
            if given not in _WITHOUT_EFFECT:
                raise BadMessage(
                    "a model is loaded as the server's settings describe it; leave this parameter out",
                    path=f"parameters.{given[:100]}",
                )
        await self._controlling(peer, Action.LOAD, name).load(name)

    async def unload(self, name: str, parameters: Mapping[str, Any], peer: Peer) -> None:
        for given in parameters:
            if given not in _WITHOUT_EFFECT:
                raise BadMessage("unknown parameter", path=f"parameters.{given[:100]}")
        control = self._controlling(peer, Action.UNLOAD, name)
        # As in Triton, unloading an unknown model succeeds.
        if any(model.name == name for model in await self.models()):
            await control.unload(name)

    def _controlling(self, peer: Peer, action: Action, name: str) -> ModelControl:
        if self._control is None:
            raise CallFailed(left_out(MODEL_CONTROL_IS_OFF))
        self.gate.check(peer, action, name)
        return self._control

    # -- routes -----------------------------------------------------------------------------------------------

    def route(self, model: str, peer: Peer) -> dict[str, Any]:
        """Returns the route of a model. Raises CallFailed."""
        self.gate.check(peer, Action.READ, model)
        return self._routing(model).told(model)

    async def change_route(self, model: str, wanted: Mapping[str, Any], peer: Peer) -> dict[str, Any]:
        """Changes the route of a model, and returns it. Raises CallFailed and BadMessage."""
        caller = self.gate.check(peer, Action.ROUTE, model)
        return await self._routing(model).change(model, wanted, caller.key_id)

    def _routing(self, model: str) -> Routes:
        if self._routes is None:
            raise CallFailed(unknown_model(model))
        return self._routes

    # -- shared memory --------------------------------------------------------------------------------------------

    def region_status(self, kind: Kind, name: str, peer: Peer) -> list[dict[str, Any]]:
        """Returns the description of this region of the caller's tenant; of all of the kind for "". To whom all models
        are shown, so are the regions of all tenants. Raises UnknownRegion."""
        caller = self.gate.check(peer, Action.READ)
        if self._regions is not None:
            return self._regions.status(kind, name, caller.tenant, of_all=self.gate.sees_tenants(caller))
        if name:
            raise unknown_region(name, kind)
        return []

    def register_region(self, kind: Kind, name: str, facts: Mapping[str, Any], peer: Peer) -> None:
        """Registers a region of the caller's tenant.

        facts: `key`, `offset` and `byte_size`; for GPU memory `raw_handle`, `device_id` and `byte_size`.
        """
        if self._regions is None:
            raise CallFailed(left_out(SHARED_MEMORY_IS_OFF))
        if kind == "cuda" and not self._regions.has_cuda:
            raise CallFailed(left_out(NO_DRIVER))
        caller = self.gate.check(peer, Action.SHARED_MEMORY)
        self._regions.register(kind, name, facts, caller.tenant)

    def unregister_regions(self, kind: Kind, name: str, peer: Peer) -> None:
        """Unregisters this region of the caller's tenant; all of the kind for "".

        If shared memory is off this has no effect and is no error, since perf_analyzer always unregisters both kinds
        before it exits."""
        if self._regions is not None:
            caller = self.gate.check(peer, Action.SHARED_MEMORY)
            self._regions.unregister(kind, name, caller.tenant)

    # -- tracing and logging --------------------------------------------------------------------------------------

    async def trace(self, changes: Mapping[str, Any], peer: Peer, model: str = "") -> Settings:
        """Changes and returns the trace settings of this model; of all models for ""."""
        switches = self._switching("the trace extension", changes, peer, Action.TRACE, model)
        if model and model not in [known.name for known in await self.models()]:
            raise CallFailed(unknown_model(model))
        return await switches.trace(changes, model)

    async def log(self, changes: Mapping[str, Any], peer: Peer) -> Settings:
        return await self._switching("the logging extension", changes, peer, Action.LOG).log(changes)

    def _switching(
        self, extension: str, changes: Mapping[str, Any], peer: Peer, action: Action, model: str = ""
    ) -> Switches:
        if self._switches is None:
            raise CallFailed(left_out(f"{extension} is not supported by this server"))
        self.gate.check(peer, action if changes else Action.READ, model)
        return self._switches
