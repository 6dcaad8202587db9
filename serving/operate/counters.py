"""Gives quotas a place where all replicas count together: a Valkey of our own, unless the settings name a Redis."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from serving.config import RedisSettings, Settings
from serving.operate.keeping import Unsafe, kept_folder
from serving.store.embedded import EmbeddedFailed, embedded

FOLDER = "valkey"


@contextmanager
def counters(settings: Settings, say: Callable[[str], None]) -> Iterator[Settings]:
    """Yields the settings to serve with, and ends in the end what it has started.

    A Valkey starts only if quotas have to be shared: with tenants, several replicas, and no Redis in the settings. If
    it cannot start, every replica keeps to an equal share of each limit, and the warning says so.
    """
    replicas = settings.most_replicas()
    server = settings.server
    if not settings.tenants or server.redis is not None or replicas < 2 or server.ray_address is not None:
        yield settings
        return
    with ExitStack() as started:
        try:
            url = started.enter_context(embedded(_folder(settings)))
        except (EmbeddedFailed, Unsafe) as error:
            say(f"WARNING: quotas: {error}; each of {replicas} replicas keeps to its own share of every limit")
            yield settings
            return
        say("quotas: a Valkey of Headway's own counts for all replicas; `server.redis` names another")
        own = server.model_copy(update={"redis": RedisSettings(url=url)})
        yield settings.model_copy(update={"server": own})


def _folder(settings: Settings) -> Path:
    state = settings.server.state
    return (Path(state) if state is not None and "://" not in state else kept_folder()) / FOLDER
