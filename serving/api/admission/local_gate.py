"""The gate of a server whose callers need no credential: everybody may predict, but only callers on the same machine
and those with the admin token may inspect or change the server.

A web page that an operator visits also sends requests from the operator's machine. Two headers reveal such a request:
the browser names the page's site in `Origin` and `Sec-Fetch-Site`, and if the site's own name resolves to this machine
(DNS rebinding), that name is in `Host`.
"""

from hmac import compare_digest
from ipaddress import ip_address

from serving.api.admission.gate import ANYBODY, CHANGES, Action, Caller, Peer
from serving.api.faults import CallFailed, Fault

ELSEWHERE = "refused: send this request from the server's machine, or with the admin token (server.admin_token_file)"
CROSS_SITE = "refused: a web page of another site sent this request; send the admin token if that is intended"
GUARDED = CHANGES | {Action.DEBUG, Action.AUDIT, Action.KEYS, Action.FEATURES_WRITE}
STRANGE_HOST = "refused: call the server by its address or as localhost, or send the admin token"


class LocalGate:
    """Guards what changes the server and what shows its inside.

    peer_header: the header in which the load balancer sends the caller's address, after `peer_key` and a hyphen; "" if
        requests come without a load balancer. Then the address is that of the connection.
    admin_token: "" for none. own_token: what this server's own processes send, "" for none.
    """

    asks = False

    def __init__(
        self, *, peer_header: str = "", peer_key: bytes = b"", admin_token: str = "", own_token: str = ""
    ) -> None:
        self._peer_header = peer_header
        self._peer_prefix = peer_key + b"-"
        self._admin = tuple(f"Bearer {token}".encode() for token in (admin_token, own_token) if token)

    def check(self, peer: Peer, action: Action, model: str = "", version: str = "", *, quietly: bool = False) -> Caller:
        """Raises CallFailed with the reason (403) if the peer is not allowed."""
        if action in GUARDED and not self.is_admin(peer) and (reason := self._why_not(peer)):
            raise CallFailed(Fault(403, reason))
        return ANYBODY

    def allows(self, peer: Peer, action: Action) -> bool:
        return action not in GUARDED or self.is_admin(peer) or not self._why_not(peer)

    def sees(self, caller: Caller, model: str) -> bool:
        return True

    def sees_tenants(self, caller: Caller) -> bool:
        return True

    def is_admin(self, peer: Peer) -> bool:
        """Returns whether the peer has sent the admin token, or is a process of this server."""
        shown = peer.header("authorization")
        if not shown or shown.startswith("Bearer hw_"):  # an API key
            return False
        sent = shown.encode("latin-1", "replace")
        return any(compare_digest(sent, admin) for admin in self._admin)

    def _why_not(self, peer: Peer) -> str:
        host = peer.header("host")
        if not _is_loopback(self.address(peer)):
            return ELSEWHERE
        if _is_cross_site(peer.header("sec-fetch-site"), peer.header("origin"), host):
            return CROSS_SITE
        return "" if not host or _is_no_name(host) else STRANGE_HOST

    def address(self, peer: Peer) -> str:
        """Returns the peer's address; "" if the load balancer has not sent it, which counts as not loopback."""
        if not self._peer_header:
            return peer.address
        value = peer.header(self._peer_header).encode("latin-1", "replace")
        size = len(self._peer_prefix)
        return value[size:].decode("latin-1") if compare_digest(value[:size], self._peer_prefix) else ""


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
