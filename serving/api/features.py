"""The interface of a feature store, as the wires call it. Answers have the form of the JSON sent over HTTP."""

from collections.abc import Mapping
from typing import Any, Protocol

from serving.api.admission.quota import Quota

FEATURES_ARE_OFF = "there is no feature store on this server; the setting features declares its views"


class Features(Protocol):
    """The features of all tenants. Refusals are raised as CallFailed.

    tenant_header: the header in which clients name their tenant, where they need no credential; "" for one tenant.
    quota: bounds what each tenant may ask, together with its requests to models; None if nothing does.
    """

    tenant_header: str
    quota: Quota | None

    def described(self) -> list[dict[str, Any]]:
        """Returns the description of every view."""
        ...

    async def push(self, tenant: str, view: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Writes the rows in the body, and returns how many values were written and how many were superseded."""
        ...

    async def get(self, tenant: str, view: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Returns the features of the entities that the body asks for, in columns."""
        ...
