"""The folder where Ray Serve's HAProxy and, where there is no home to write to, Ray's token are kept: one for each
user, closed to all others. Ray's own places fail for a second user of a machine, and where the home cannot be written.
"""

import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex


class Unsafe(Exception):
    """The folder cannot be used; the text says why, and what to do."""


def kept_folder(root: Path | None = None) -> Path:
    """Makes it where it is missing. Raises Unsafe where it belongs to somebody else: in /tmp anybody makes folders."""
    path = (root or Path(tempfile.gettempdir())) / f"headway-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise Unsafe(f"{path} cannot be made: {error.strerror}; set TMPDIR to a folder that can be written") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise Unsafe(f"{path} is not a folder of this user alone (mode 700); remove it, or set TMPDIR")
    return path


def home_trouble(home: Path | None) -> str:
    """Why Ray cannot keep its token in this home, "" where it can. home: None where there is none."""
    if home is None:
        return "there is no home"
    folder = next(path for path in (home / ".ray", home) if path.exists() or path == home)
    if not folder.is_dir():
        return f"{folder} is not a folder"
    # By trying: access() says yes to root even where nothing can be made.
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
    """Where Ray finds its token, if not where it looks by itself: then it is made in `folder`."""
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
    """Ray Serve's HAProxy below this folder; its own is /tmp/haproxy-serve, of whoever came first."""
    below = folder / "haproxy"
    return {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(below / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(below / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(below),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(below / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(below / "metrics.sock"),
    }
