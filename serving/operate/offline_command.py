"""Parts that the commands on files of features share: their settings, their output, and what they say on failure."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serving.cluster.feature_history import NoHistory, history_place, own_folder
from serving.config import Settings, SettingsError, load_settings
from serving.features.offline.errors import OfflineError
from serving.features.views import FeatureView
from serving.operate.printing import fail, mistake, say
from serving.store.base import StoreUnavailable
from serving.store.objects import BadPath, scheme_of

if TYPE_CHECKING:
    from serving.features.offline.files import Store

out = Console(soft_wrap=True)
_MEMORY = re.compile(r"[1-9][0-9]{0,5}(MB|GB)")


class Root(NamedTuple):
    """The place of the offline store. own: the folder of this machine. spool: the folder whose pushes belong to it."""

    place: str
    own: Path
    spool: Path | None

    def opened(self) -> "Store":
        """Returns the store. Raises ModuleNotFoundError."""
        from serving.features.offline.files import open_store

        return open_store(self.place, self.own)

    def drained(self) -> "Store":
        """Returns the store, after what was pushed to servers that have ended was moved into it."""
        from serving.features.offline.drain import drain

        store = self.opened()
        if self.spool is not None:
            for trouble in drain(self.spool, store):
                say(f"WARNING: {trouble}")
        return store


def print_table(rows: Iterable[Mapping[str, Any]]) -> None:
    table = Table(box=None, header_style="dim", pad_edge=False)
    for row in rows:
        if not table.columns:
            for column in row:
                table.add_column(column, overflow="fold")
        table.add_row(*(escape(str(value)) for value in row.values()))
    if table.row_count:
        out.print(table)


def memory_of(text: str) -> str:
    if not _MEMORY.fullmatch(text):
        mistake("--memory: write a number with its unit, such as 500MB or 4GB")
    return text


def settings_of(config: Path) -> Settings:
    try:
        settings = load_settings(config)
    except SettingsError as error:
        mistake("\n".join(error.mistakes))
    if settings.features is None:
        mistake(f"{config}: declares no features; see docs/features.md")
    return settings


def view_of(settings: Settings, name: str) -> FeatureView:
    views = settings.features.declared().views if settings.features else {}
    if name not in views:
        mistake(f"there is no feature view {name!r}; known: {', '.join(views)}")
    return views[name]


def root_of(settings: Settings, store: str | None) -> Root:
    """Returns the place of the offline store. Exits with code 2 if there is none."""
    try:
        place = store or history_place(settings)
        if store and scheme_of(store)[0] == "file":
            folder = Path(scheme_of(store)[1]).expanduser()
            return Root(store, folder, folder)
        own = own_folder(settings)
    except (NoHistory, BadPath) as error:
        mistake(f"{error}; or name a folder with --store")
    return Root(place, own, None if store else own)


@contextmanager
def failures_printed() -> Iterator[None]:
    """Prints why a command failed, and exits with code 1."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in ("pyarrow", "duckdb", "redis", "obstore"):
            raise
        text = f"{error.name} is not installed: pip install 'headway[features]'"
    except OSError as error:
        text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except StoreUnavailable as error:
        text = f"the online store does not answer: {error}; what was stored in files stays, run the command again"
    except OfflineError as error:
        text = str(error)
    else:
        return
    fail(text)
