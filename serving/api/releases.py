"""The interface of releases, as the front's routes call it. Answers have the form of the JSON sent over HTTP."""

from collections.abc import Mapping
from typing import Any, Protocol

RELEASES_ARE_OFF = "this server has no releases: they need HAProxy, and a registry (pip install 'headway[auth]')"


class Releases(Protocol):
    """The releases of all models. Refusals are raised as CallFailed and BadMessage. by: who asks, for the records."""

    async def told(self, model: str) -> dict[str, Any]:
        """Returns the model's versions, its traffic, and its running release or the latest one."""
        ...

    async def start(self, model: str, body: Mapping[str, Any], by: str) -> dict[str, Any]:
        """Begins a release. body: `version`, `why`, `again`, and the plan."""
        ...

    async def change(self, model: str, what: str, body: Mapping[str, Any], by: str) -> dict[str, Any]:
        """Holds, resumes or aborts the running release. what: `hold`, `resume`, `abort`. body: `why`."""
        ...

    async def consent(self, model: str, what: str, body: Mapping[str, Any], by: str) -> dict[str, Any]:
        """Approves a version or takes an approval back. what: `approve`, `revoke`. body: `version`, `why`."""
        ...
