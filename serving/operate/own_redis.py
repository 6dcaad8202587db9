"""Gives what needs a Redis one: a Valkey of our own, unless the settings name a Redis."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from serving.config import RedisSettings, Settings
from serving.operate.keeping import Unsafe, kept_folder
from serving.store.embedded import EmbeddedFailed, embedded

FOLDER = "valkey"


@contextmanager
def own_redis(settings: Settings, say: Callable[[str], None]) -> Iterator[Settings]:
    """Yields the settings to serve with, and ends in the end what it has started.

    A Valkey starts only if something needs a Redis and the settings name none. If it cannot start, the warning says
    what that means for each of them.
    """
    server = settings.server
    needs = _needs(settings)
    if not needs or server.redis is not None or server.ray_address is not None:
        yield settings
        return
    with ExitStack() as started:
        try:
            url = started.enter_context(embedded(_folder(settings)))
        except (EmbeddedFailed, Unsafe) as error:
            for what, otherwise in needs.items():
                say(f"WARNING: {what}: {error}; {otherwise}")
            yield settings
            return
        say(f"{', '.join(needs)}: kept in a Valkey of Headway's own; `server.redis` names another")
        own = server.model_copy(update={"redis": RedisSettings(url=url)})
        yield settings.model_copy(update={"server": own})


def _needs(settings: Settings) -> dict[str, str]:
    """Returns what needs a Redis, each with what happens without one."""
    replicas = settings.most_replicas()
    needs: dict[str, str] = {}
    if settings.tenants and replicas > 1:
        needs["quotas"] = f"each of {replicas} replicas keeps to its own share of every limit"
    if any(model.cache is not None and model.most_replicas() > 1 for model in settings.models):
        needs["cache"] = "each replica only finds the answers that it has computed itself"
    if settings.features is not None:
        needs["features"] = "none can be written, and every one that is read counts as unavailable"
    return needs


def _folder(settings: Settings) -> Path:
    state = settings.server.state
    return (Path(state) if state is not None and "://" not in state else kept_folder()) / FOLDER
