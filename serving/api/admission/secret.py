"""The secret that HAProxy's launcher and all replicas share. It proves that HAProxy, not a client, added a header.

`headway serve` makes a secret at each start and sets it in the environment of Ray's processes. If Ray was started in
another way, that variable is missing, and the secret is Ray's own token, which every node of a cluster has. Without
either, no secret is shared and such headers are ignored. Only keys derived from the secret are sent; it is never
written to a file or a log. Imports only the standard library, since `cluster/haproxy/command.py` runs in a new process
at every change of the replicas.
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
    """Returns 16 hex digits derived from the secret, different for each purpose (HMAC-SHA256, truncated)."""
    return _derived(_secret(), purpose)[:KEY_BYTES].encode()


def _derived(secret: bytes, purpose: str) -> str:
    return hmac.new(secret, purpose.encode(), hashlib.sha256).hexdigest()


def own_token() -> str:
    """Returns what this server's own processes send as a bearer token when they ask it; "" without a shared secret.

    Looks for the secret at each call, since `headway serve` sets it after this module is imported."""
    secret = known(os.environ)
    return f"hwown_{_derived(secret, 'own requests')}" if secret else ""


@cache
def _secret() -> bytes:
    return known(os.environ) or token_bytes(KEY_BYTES)  # without a shared secret a random one, so that no key matches


def known(environment: "os._Environ[str] | dict[str, str]") -> bytes:
    """Returns the secret for this environment, empty if there is none. Looks for Ray's token where Ray does."""
    for name in (VARIABLE, "RAY_AUTH_TOKEN"):
        if value := environment.get(name):
            return value.encode()
    try:
        path = environment.get("RAY_AUTH_TOKEN_PATH") or Path("~/.ray/auth_token").expanduser()
        return Path(path).read_bytes().strip()
    except (OSError, RuntimeError):  # no such file, or no home
        return b""
