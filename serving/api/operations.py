"""What a server is asked beside inference: one answer for both wires, in the shapes of HTTP's JSON.

What a setting has not allowed is refused with the name of that setting. Refusals are raised: CallFailed or BadMessage.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from serving.api.admission.gate import Caller, Gate
from serving.api.dispatch import SHARED_MEMORY_IS_OFF
from serving.api.entry import ModelEntry
from serving.api.faults import CallFailed, left_out, unknown_model
from serving.api.metadata import server_metadata, statistics
from serving.api.shared_memory.memory import Kind
from serving.api.shared_memory.regions import NO_DRIVER, Regions, unknown_region
from serving.protocol.errors import BadMessage

Settings = dict[str, Any]
MODEL_CONTROL_IS_OFF = "loading and unloading are off on this server; the setting server.model_control allows them"
# Nothing depends on a model here, so whether dependents go too makes no difference.
_WITHOUT_EFFECT = ("unload_dependents",)


class ModelControl(Protocol):
    """Brings models and takes them away, at run time. Both raise CallFailed with the reason."""

    async def load(self, name: str) -> None:
        """Deploys a model of the settings, or replaces its replicas; returns when the new ones answer."""
        ...

    async def unload(self, name: str) -> None:
        """Returns when it answers no more; its replicas may still finish what they have."""
        ...


class Switches(Protocol):
    """What is traced and logged, in Triton's names. With changes, after these were made in all replicas. Raises
    BadMessage for a setting that has no effect here, or a value that makes no sense."""

    async def trace(self, changes: Mapping[str, Any], model: str = "") -> Settings:
        """Of this model, or of all."""
        ...

    async def log(self, changes: Mapping[str, Any]) -> Settings: ...


class Operations:
    """`models` gives the entry of every model, `counts` an entry of `model_stats` for each. `strict_readiness`: ready
    only while every wanted model is. `regions`, `control`, `switches`: None where that is not allowed. `gate`: which
    callers may change anything."""

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
        gate: Gate | None = None,
    ) -> None:
        self.models = models
        self.name = name
        self._counts = counts
        self._strict_readiness = strict_readiness
        self._regions = regions
        self._control = control
        self._switches = switches
        self.gate = gate or Gate()

    # -- what there is ----------------------------------------------------------------------------------------

    def server(self) -> dict[str, Any]:
        offered = {
            "model_repository": self._control,
            "model_repository(unload_dependents)": self._control,
            "system_shared_memory": self._regions,
            "cuda_shared_memory": self._regions if self._regions and self._regions.has_cuda else None,
            "logging": self._switches,
            "trace": self._switches,
        }
        return server_metadata(self.name, [extension for extension, there in offered.items() if there is not None])

    async def waiting(self) -> list[str]:
        """The models for which the server does not call itself ready."""
        if not self._strict_readiness:
            return []
        return [model.name for model in await self.models() if model.wanted and not model.is_ready]

    async def index(self, *, only_ready: bool) -> list[dict[str, str]]:
        """The repository index."""
        return [
            {"name": model.name, "version": model.version, "state": model.state, "reason": model.reason}
            for model in await self.models()
            if not only_ready or model.is_ready
        ]

    async def statistics(self) -> dict[str, Any]:
        """Of all models."""
        return statistics(await self._counts() if self._counts else [])

    # -- models come and go -----------------------------------------------------------------------------------

    async def load(self, name: str, parameters: Mapping[str, Any], caller: Caller) -> None:
        for given in parameters:
            if given not in _WITHOUT_EFFECT:
                raise BadMessage(
                    "a model is loaded as the settings describe it; nothing can be given here",
                    path=f"parameters.{given[:100]}",
                )
        await self._controlling(caller).load(name)

    async def unload(self, name: str, parameters: Mapping[str, Any], caller: Caller) -> None:
        for given in parameters:
            if given not in _WITHOUT_EFFECT:
                raise BadMessage("unknown", path=f"parameters.{given[:100]}")
        control = self._controlling(caller)
        # What is not there is unloaded already: Triton says so of any name.
        if any(model.name == name for model in await self.models()):
            await control.unload(name)

    def _controlling(self, caller: Caller) -> ModelControl:
        if self._control is None:
            raise CallFailed(left_out(MODEL_CONTROL_IS_OFF))
        self.gate.check(caller)
        return self._control

    # -- shared memory ----------------------------------------------------------------------------------------

    def region_status(self, kind: Kind, name: str) -> list[dict[str, Any]]:
        """Of this region, or of all of the kind for ""."""
        if self._regions is not None:
            return self._regions.status(kind, name)
        if name:
            raise unknown_region(name, kind)
        return []

    def register_region(self, kind: Kind, name: str, facts: Mapping[str, Any], caller: Caller) -> None:
        """facts: `key`, `offset` and `byte_size`, or of a GPU's memory `raw_handle`, `device_id` and `byte_size`."""
        if self._regions is None:
            raise CallFailed(left_out(SHARED_MEMORY_IS_OFF))
        if kind == "cuda" and not self._regions.has_cuda:
            raise CallFailed(left_out(NO_DRIVER))
        self.gate.check(caller)
        self._regions.register(kind, name, facts)

    def unregister_regions(self, kind: Kind, name: str, caller: Caller) -> None:
        """This region, or all of the kind for "". Without any, whoever unregisters what it never registered may go on:
        perf_analyzer unregisters both kinds on its way out."""
        if self._regions is not None:
            self.gate.check(caller)
            self._regions.unregister(kind, name)

    # -- what is traced and logged ----------------------------------------------------------------------------

    async def trace(self, changes: Mapping[str, Any], caller: Caller, model: str = "") -> Settings:
        """Of this model, or of all for ""."""
        switches = self._switching("the trace extension", changes, caller)
        if model and model not in [known.name for known in await self.models()]:
            raise CallFailed(unknown_model(model))
        return await switches.trace(changes, model)

    async def log(self, changes: Mapping[str, Any], caller: Caller) -> Settings:
        return await self._switching("the logging extension", changes, caller).log(changes)

    def _switching(self, what: str, changes: Mapping[str, Any], caller: Caller) -> Switches:
        if self._switches is None:
            raise CallFailed(left_out(f"{what} is not supported by this server"))
        if changes:
            self.gate.check(caller)
        return self._switches
