"""A model as the repository index lists it: what a server says of each model, whichever process serves it."""

from dataclasses import dataclass
from typing import Any, Literal

State = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """State and signature of a model. reason: why it is in this state, "" where nothing is to be said. signature: as
    `openapi.signature` makes it, None where it is not known. wanted: False for a model that a client has unloaded."""

    name: str
    version: str
    state: State = "UNAVAILABLE"
    reason: str = ""
    signature: dict[str, Any] | None = None
    wanted: bool = True

    @property
    def is_ready(self) -> bool:
        return self.state == "READY"

    def is_called(self, name: str, version: str) -> bool:
        """Whether a request with this name and version means it. version: "" for any."""
        return self.name == name and version in ("", self.version)
