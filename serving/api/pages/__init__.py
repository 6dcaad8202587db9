"""The pages for browsers. They consist of the files of this folder and load nothing from other servers."""

from pathlib import Path
from typing import NamedTuple

_FOLDER = Path(__file__).parent
_KINDS = {".html": b"text/html", ".css": b"text/css", ".js": b"text/javascript", ".svg": b"image/svg+xml"}
# Only scripts and styles of this server run, so data of clients that a page shows cannot be executed.
_POLICY = b"default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


class Page(NamedTuple):
    headers: list[tuple[bytes, bytes]]
    body: bytes


def _read(path: Path) -> Page:
    headers = [
        (b"content-type", _KINDS[path.suffix] + b"; charset=utf-8"),
        (b"content-security-policy", _POLICY),
        (b"x-content-type-options", b"nosniff"),
        (b"cache-control", b"no-cache"),
    ]
    return Page(headers, path.read_bytes())


PAGES = {f"/pages/{path.name}": _read(path) for path in _FOLDER.iterdir() if path.suffix in _KINDS}
PAGES["/dashboard"] = PAGES["/pages/dashboard.html"]
PAGES["/audit"] = PAGES["/pages/audit.html"]
PAGES["/releases"] = PAGES["/pages/releases.html"]
PAGES["/"] = PAGES["/try"] = PAGES["/pages/try.html"]
