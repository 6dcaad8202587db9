"""The secret shared by HAProxy's launcher and all replicas: it tells a header that HAProxy added from a client's own.

`headway serve` makes one at each start and leaves it in the environment of Ray's processes. A Ray that others started
has no such variable; there the secret is Ray's own token, which every node of a cluster has. Without either nothing is
shared, and no such header is believed. Only keys made from the secret are sent, and none is written to a file or a log.
Standard library only: `cluster/haproxy/editing.py` runs at every change of a replica.
"""

import hashlib
import hmac
import os
from functools import cache
from pathlib import Path
from secrets import token_bytes

VARIABLE = "HEADWAY_SECRET"
KEY_BYTES = 16


def key(purpose: str) -> bytes:
    """16 hex digits that only a process with the secret can know; another purpose has other digits."""
    return hmac.new(_secret(), purpose.encode(), hashlib.sha256).hexdigest()[:KEY_BYTES].encode()


@cache
def _secret() -> bytes:
    return known(os.environ) or token_bytes(KEY_BYTES)  # random: known to nobody else, so no key made of it fits


def known(environment: "os._Environ[str] | dict[str, str]") -> bytes:
    """The secret that this environment leads to; empty without one. Looks for Ray's token where Ray does."""
    for name in (VARIABLE, "RAY_AUTH_TOKEN"):
        if value := environment.get(name):
            return value.encode()
    try:
        path = environment.get("RAY_AUTH_TOKEN_PATH") or Path("~/.ray/auth_token").expanduser()
        return Path(path).read_bytes().strip()
    except (OSError, RuntimeError):  # no such file, or no home
        return b""
