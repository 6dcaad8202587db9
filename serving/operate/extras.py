"""Finds packages that the settings need and that are not installed, before anything is started."""

from importlib.util import find_spec

from serving.config import Settings


def missing(settings: Settings) -> list[str]:
    """Returns a sentence per setting that needs a package which this Python lacks."""
    server = settings.server
    auth = server.auth if server.needs_credentials else None
    needs = [
        ("server.auth.keys", "obstore", "auth", auth is not None and auth.keys),
        ("server.auth.jwt", "jwt", "auth", auth is not None and auth.jwt is not None),
        ("server.redis", "redis", "redis", server.redis is not None),
        ("features", "redis", "redis", settings.features is not None),
    ]
    return [
        f"{setting} needs the package {package}: pip install 'headway[{extra}]'"
        for setting, package, extra, is_set in needs
        if is_set and find_spec(package) is None
    ]
