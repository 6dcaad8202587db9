"""The secret shared by HAProxy and all replicas. It distinguishes headers that HAProxy added from a client's own.

`headway serve` makes a secret at each start and puts it into the environment of Ray's processes. If Ray was started
otherwise, the secret is Ray's own token, which every node of a cluster has. Without either there is no shared secret,
and such headers are ignored. Only keys made from the secret are sent; the secret is written to no file and no log.
Standard library only: the command that starts HAProxy runs whenever the replicas change.
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
    """Returns 16 hex digits that only a process with the secret can compute, different for each purpose."""
    return hmac.new(_secret(), purpose.encode(), hashlib.sha256).hexdigest()[:KEY_BYTES].encode()


@cache
def _secret() -> bytes:
    return known(os.environ) or token_bytes(KEY_BYTES)  # random: no other process has it, so no key matches


def known(environment: "os._Environ[str] | dict[str, str]") -> bytes:
    """Returns the secret for this environment, empty if there is none. Looks for Ray's token in the places Ray does."""
    for name in (VARIABLE, "RAY_AUTH_TOKEN"):
        if value := environment.get(name):
            return value.encode()
    try:
        path = environment.get("RAY_AUTH_TOKEN_PATH") or Path("~/.ray/auth_token").expanduser()
        return Path(path).read_bytes().strip()
    except (OSError, RuntimeError):  # no such file, or no home
        return b""
