"""The entry of a model in the repository index, whichever process serves the model."""

from dataclasses import dataclass
from typing import Any, Literal

State = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """State and signature of one version of a model.

    application: what serves it, "" for the one of the model's name.
    reason: why it is in this state; "" if there is nothing to explain.
    signature: made by `openapi.document.signature`; None if unknown.
    wanted: False for a model that a client has unloaded.
    """

    name: str
    version: str
    state: State = "UNAVAILABLE"
    reason: str = ""
    signature: dict[str, Any] | None = None
    wanted: bool = True
    application: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "application", self.application or self.name)

    @property
    def is_ready(self) -> bool:
        return self.state == "READY"

    def is_called(self, name: str, version: str) -> bool:
        """Returns whether a request with this name and version is for this model. version: "" for any."""
        return self.name == name and version in ("", self.version)
