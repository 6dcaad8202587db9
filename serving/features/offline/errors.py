"""The error that commands print. Imports nothing, so that catching it needs none of the packages."""


class OfflineError(Exception):
    """A file, a function or the store cannot be used. The text says which one and why."""
