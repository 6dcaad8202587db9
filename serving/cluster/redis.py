"""Connects a process of Ray Serve to the Redis of the settings, under a time limit and a circuit breaker."""

from pathlib import Path
from random import random
from typing import TYPE_CHECKING

from serving.config import RedisSettings
from serving.core.clock import SystemClock

if TYPE_CHECKING:
    from serving.store.connecting import Client
    from serving.store.guard import Guard

_FILES = ("password_file", "ca_file", "cert_file", "key_file")


def connected(told: RedisSettings, limit_s: float, *, is_bounded: bool = False) -> "tuple[Client, Guard]":
    """Returns a client, which connects when it is first used, and the guard for its calls. limit_s: for one call.
    is_bounded: no call is made without a guard.

    Raises ModuleNotFoundError with advice without `headway[redis]`."""
    # Imported here, so that servers without a Redis need no package for it.
    from models.breaker import Breaker
    from serving.store.connecting import Address, Kind, connect
    from serving.store.guard import Guard

    files = {name: Path(file) for name in _FILES if (file := getattr(told, name))}
    kind = Kind.SENTINEL if told.master else Kind.CLUSTER if told.cluster else Kind.SERVER
    address = Address(url=told.url, kind=kind, master=told.master or "", username=told.username, **files)
    return connect(address, limit_s, is_bounded=is_bounded), Guard(Breaker(random), SystemClock(), limit_s)
