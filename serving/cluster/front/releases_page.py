"""Serves the data of the releases page: versions, approvals, the running release, and the history of one model."""

import json
from collections.abc import Mapping
from urllib.parse import parse_qs

from serving.api.admission.gate import Action
from serving.api.http.front import LivePage, Viewer
from serving.cluster.front.releases import FrontReleases


def releases_pages(releases: FrontReleases | None, *, name: str = "headway") -> Mapping[str, LivePage]:
    """Returns the page. `/releases/data?model=`: what there is of the model; without the query, of the first that the
    caller sees. Without releases, or a model that the caller sees, `models` is empty and the rest missing."""

    async def data(query: str, viewer: Viewer) -> tuple[str, bytes]:
        models = [model for model in releases.models if viewer.sees(model)] if releases is not None else []
        asked = parse_qs(query).get("model", models[:1])[0] if models else ""
        told: dict[str, object] = {
            "server": name,
            "is_on": releases is not None,
            "models": models,
            "may": {"approve": viewer.may(Action.APPROVE), "release": viewer.may(Action.RELEASE)},
        }
        if releases is not None and asked in models:
            told |= await releases.page(asked)
        return "application/json", json.dumps(told, separators=(",", ":")).encode()

    return {"/releases/data": data}
