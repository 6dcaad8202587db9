"""Decides which callers may inspect or change the server: callers on the same machine, and those with the admin token.

A web page that an operator visits also sends requests from the operator's machine. Two headers reveal such a request:
the browser names the page's site in `Origin` and `Sec-Fetch-Site`, and if the site's own name resolves to this machine
(DNS rebinding), that name is in `Host`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hmac import compare_digest
from ipaddress import ip_address
from typing import Any

from serving.api.faults import CallFailed, Fault

ELSEWHERE = "refused: send this request from the server's machine, or with the admin token (server.admin_token_file)"
CROSS_SITE = "refused: a web page of another site sent this request; send the admin token if that is intended"
STRANGE_HOST = "refused: call the server by its address or as localhost, or send the admin token"


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of an operation, as its connection and headers describe it.

    header: returns the value of a header by its lower-case name, "" if it was not sent.
    address: the IP address of the other end of the connection, "" if unknown.
    """

    header: Callable[[str], str]
    address: str = ""


class Gate:
    """Checks callers of privileged operations.

    peer_header: the header in which the load balancer sends the caller's address, after `peer_key` and a hyphen; "" if
        requests come without a load balancer. Then the address is that of the connection.
    admin_token: "" for none.
    """

    def __init__(self, *, peer_header: str = "", peer_key: bytes = b"", admin_token: str = "") -> None:
        self._peer_header = peer_header
        self._peer_prefix = peer_key + b"-"
        self._admin = f"Bearer {admin_token}".encode() if admin_token else b""

    def check(self, caller: Caller) -> None:
        """Raises CallFailed with the reason (403) if the caller is not allowed."""
        shown = caller.header("authorization").encode("latin-1", "replace")
        if self._admin and compare_digest(shown, self._admin):
            return
        if reason := self._why_not(caller):
            raise CallFailed(Fault(403, reason))

    def _why_not(self, caller: Caller) -> str:
        host = caller.header("host")
        if not _is_loopback(self._address(caller)):
            return ELSEWHERE
        if _is_cross_site(caller.header("sec-fetch-site"), caller.header("origin"), host):
            return CROSS_SITE
        return "" if not host or _is_no_name(host) else STRANGE_HOST

    def _address(self, caller: Caller) -> str:
        """Returns the caller's address; "" if the load balancer has not sent it, which counts as not loopback."""
        if not self._peer_header:
            return caller.address
        value = caller.header(self._peer_header).encode("latin-1", "replace")
        size = len(self._peer_prefix)
        return value[size:].decode("latin-1") if compare_digest(value[:size], self._peer_prefix) else ""


def http_caller(scope: Mapping[str, Any]) -> Caller:
    """Returns the caller of a request from its ASGI scope."""
    headers = dict(reversed(scope["headers"]))  # if a header is repeated, the first one counts

    def header(name: str) -> str:
        value: bytes = headers.get(name.encode(), b"")
        return value.decode("latin-1")

    return Caller(header, (scope.get("client") or ("",))[0])


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address.removeprefix("::ffff:")).is_loopback
    except ValueError:
        return False


def _is_cross_site(fetched_from: str, origin: str, host: str) -> bool:
    """Returns whether a browser sends the request for a page of another site. Other clients send neither header."""
    if fetched_from not in ("", "same-origin", "none"):
        return True
    return bool(origin) and origin.partition("://")[2].lower() != host.lower()


def _is_no_name(host: str) -> bool:
    """Returns whether `host` is an IP address or localhost, which cannot be the host of another site's page."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
