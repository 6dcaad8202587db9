"""Folders of the user that serves: for what is lost with a restart of the machine, and for the state, which is not.

The first holds the files of Ray Serve's HAProxy and, if the home folder cannot be written, Ray's token. Each user has
one, closed to all others. Ray's default places fail for a second user of a machine, and without a writable home folder.
"""

import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex


class Unsafe(Exception):
    """The folder cannot be used. The text gives the reason and advice."""


def kept_folder(root: Path | None = None) -> Path:
    """Returns the folder, and creates it if it is missing. Raises Unsafe if it belongs to another user, because any
    user can create folders in /tmp."""
    path = (root or Path(tempfile.gettempdir())) / f"headway-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise Unsafe(f"{path} cannot be created: {error.strerror}; set TMPDIR to a writable folder") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise Unsafe(f"{path} is not a folder that only this user can open (mode 700); remove it, or set TMPDIR")
    return path


def home_trouble(home: Path | None) -> str:
    """Returns the reason why Ray cannot keep its token in this home folder, "" if it can. home: None without a home."""
    if home is None:
        return "this user has no home folder"
    folder = next(path for path in (home / ".ray", home) if path.exists() or path == home)
    if not folder.is_dir():
        return f"{folder} is not a folder"
    # Tries to create a file: for root, access() allows even a read-only file system.
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return f"{folder} cannot be written: {error.strerror}"


def home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:
        return None


def token_environment(folder: Path, environment: Mapping[str, str], home: Path | None) -> dict[str, str]:
    """Returns the variable that tells Ray the path of its token, and creates the token in `folder`; empty if Ray can
    use its default path or the environment already names a token."""
    if environment.get("RAY_AUTH_TOKEN") or environment.get("RAY_AUTH_TOKEN_PATH"):
        return {}
    if not home_trouble(home) or (home and os.access(home / ".ray" / "auth_token", os.R_OK)):
        return {}
    path = folder / "auth_token"
    if not path.is_file():
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(token_hex(32))
    return {"RAY_AUTH_TOKEN_PATH": str(path)}


def haproxy_environment(folder: Path) -> dict[str, str]:
    """Returns the variables that put HAProxy's files below this folder. Ray's default, /tmp/haproxy-serve, belongs to
    the first user that serves."""
    below = folder / "haproxy"
    return {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(below / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(below / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(below),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(below / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(below / "metrics.sock"),
    }
