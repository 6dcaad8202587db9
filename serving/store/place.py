"""The places where a server keeps what must outlive it: keys and the audit, and the registry of models."""

from pathlib import Path


class NoState(Exception):
    """Raised when no folder to keep keys in is found."""


def state_place(setting: str | None) -> str:
    """Returns where keys and the audit are kept: as `server.state` says, else in the home folder. Raises NoState
    without either, since the state must outlive a restart of the machine."""
    if setting is not None:
        return setting
    try:
        return str(Path.home() / ".headway" / "state")
    except RuntimeError:
        raise NoState("this user has no home folder to keep keys in; set server.state to a folder") from None


def registry_place(setting: str | None, state: str | None) -> str:
    """Returns where the registry is: as `registry.place` says, else in the state. Raises NoState."""
    return setting if setting is not None else f"{state_place(state).rstrip('/')}/registry"
