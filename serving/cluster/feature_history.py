"""Keeps what is pushed into the feature store for its history, in a process of Ray Serve."""

import asyncio
import logging
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from serving.config import Settings
from serving.store.objects import BadPath, scheme_of
from serving.store.place import NoState, state_place

if TYPE_CHECKING:
    from serving.features.offline.spool import Spool
    from serving.telemetry.served_features import ServedLog

DRAIN_EVERY_S = 60.0
logger = logging.getLogger("ray.serve")


class NoHistory(Exception):
    """Raised where no history of features can be kept. The text says why."""


def history_place(settings: Settings) -> str:
    """Returns where the offline store is: a folder or a URL. Raises NoHistory."""
    if settings.features is not None and settings.features.history is not None:
        return settings.features.history
    try:
        return f"{state_place(settings.server.state).rstrip('/')}/features"
    except NoState as error:
        raise NoHistory(str(error)) from None


def own_folder(settings: Settings) -> Path:
    """Returns the folder of this machine for the spool, the log and copies. Raises NoHistory without one."""
    if settings.features is not None and settings.features.folder is not None:
        return Path(settings.features.folder).expanduser()
    try:
        scheme, place = scheme_of(state_place(settings.server.state))
    except (BadPath, NoState) as error:
        raise NoHistory(str(error)) from None
    if scheme != "file":
        raise NoHistory(f"server.state is {place}; set features.folder to a folder that outlives the server")
    return Path(place) / "features"


def pushes_folder(settings: Settings) -> Path:
    """Returns the folder of the spool, from which pushes go to the offline store. Raises NoHistory if they cannot."""
    folder, place = own_folder(settings), history_place(settings)
    if find_spec("pyarrow") is None:
        raise NoHistory("pyarrow is not installed: pip install 'headway[features]'")
    if place.startswith("s3:") and find_spec("obstore") is None:
        raise NoHistory("obstore is not installed: pip install 'headway[features]'")
    return folder


def open_spool(settings: Settings) -> "Spool | None":
    """Returns the spool for what is pushed; None if no views are declared, or no history can be kept."""
    if settings.features is None:
        return None
    from serving.core.clock import Calendar
    from serving.features.offline.spool import Spool

    try:
        return Spool(pushes_folder(settings), Calendar())
    except NoHistory as error:
        logger.warning("features: %s; what is pushed is kept online only", error)
        return None


class LogPlace(NamedTuple):
    """The folder of the log of what is served, and the share of look-ups that is logged."""

    folder: Path
    share: float


def log_place(settings: Settings) -> LogPlace | None:
    """Returns where what is served is logged; None if the settings do not ask for that, or no history is kept."""
    if settings.features is None or not settings.features.served_share:
        return None
    try:
        return LogPlace(own_folder(settings) / "served", settings.features.served_share)
    except NoHistory as error:
        logger.warning("features: %s; what is served is not logged", error)
        return None


def open_log(place: LogPlace | None) -> "ServedLog | None":
    """Returns the log of this process; None without a place for it."""
    if place is None:
        return None
    from random import random

    from serving.telemetry.served_features import ServedLog

    return ServedLog(place.folder, share=place.share, random=random)


def begin_draining(spool: "Spool", place: str) -> "asyncio.Task[None]":
    """Starts the task that moves what was pushed, also what killed processes left, to the offline store at `place`."""

    async def keep_draining() -> None:
        while True:
            try:
                for trouble in await asyncio.to_thread(_drain, spool, place):
                    logger.warning("features: %s", trouble)
            except Exception:
                logger.exception("what was pushed stays in %s for now", spool.folder)
            await asyncio.sleep(DRAIN_EVERY_S)

    return asyncio.get_running_loop().create_task(keep_draining())


def _drain(spool: "Spool", place: str) -> list[str]:
    spool.end_file()
    if not spool.folder.is_dir() or not any(spool.folder.iterdir()):
        return []
    # In a process of its own: in a thread, pyarrow and large lines of JSON would hold up the loop for tens of ms.
    command = [sys.executable, "-m", "serving.features.offline.drain", str(spool.root), place]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise OSError(f"moving them ended with {done.returncode}: {done.stderr[-1000:]}")
    return done.stdout.splitlines()
