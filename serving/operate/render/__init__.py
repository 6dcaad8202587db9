"""Files for a cluster, rendered from the settings."""

from serving.config import Settings


def advice(settings: Settings) -> list[str]:
    """Returns what settings that work on one machine lack on a cluster, a sentence each."""
    server = settings.server
    found = []
    if server.auth is not None and server.auth.keys and "s3://" not in (server.state or ""):
        found.append("server.state: keys have to be where all pods read them, in s3://bucket/folder or a shared volume")
    if len(settings.applications()) > len({model.name for model in settings.models}) and "s3://" not in (
        server.state or ""
    ):
        found.append("server.state: routes between versions have to outlive a pod, in s3://bucket/folder or a volume")
    if settings.tenants and server.redis is None:
        found.append("server.redis: is unset, so every replica keeps to an equal share of each tenant's limits")
    if settings.features is not None and server.redis is None:
        found.append("server.redis: is unset, so the feature store keeps nothing, and every feature is unavailable")
    if any(model.reference for model in settings.models) and "s3://" not in (settings.registry.place or ""):
        found.append("registry.place: versions have to be where all pods read them, in s3://bucket/folder")
    return found
