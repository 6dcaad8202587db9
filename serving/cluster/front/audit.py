"""Serves the data of the audit page: the latest entries of the audit in the server's state."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict

from serving.api.http.front import LivePage, Viewer
from serving.gateway.audit import audit_folder, latest

MOST_ENTRIES = 500


def audit_pages(state: str, *, name: str = "headway") -> Mapping[str, LivePage]:
    """Returns the page. state: where keys and the audit are kept, "" if the server asks nobody for a credential.

    `/audit/data`: the latest entries, the newest first. `absent` says why there are none to come: `open` (nobody needs
    a credential) or `bucket` (the state is in one); "" if there is an audit."""
    folder = audit_folder(state) if state else None
    absent = "" if folder else "bucket" if state else "open"

    async def entries(query: str, viewer: Viewer) -> tuple[str, bytes]:
        found = await asyncio.to_thread(latest, folder, MOST_ENTRIES) if folder else []
        told = {"server": name, "absent": absent, "most": MOST_ENTRIES, "entries": [asdict(entry) for entry in found]}
        return "application/json", json.dumps(told, separators=(",", ":")).encode()

    return {"/audit/data": entries}
