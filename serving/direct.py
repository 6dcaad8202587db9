"""How Headway asks its own servers: never through a proxy, whatever `http_proxy` and its like say.

They are meant for the way out of a network; a proxy can neither reach this machine's loopback nor should see `/debug`.
"""

import urllib.request
from http.client import HTTPResponse
from typing import cast

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
GRPC_OPTIONS = (("grpc.enable_http_proxy", 0),)  # of every gRPC channel to ourselves


def ask(url: str | urllib.request.Request, *, timeout_s: float) -> HTTPResponse:
    """The answer, to be closed. Raises what `urllib.request.urlopen` raises."""
    return cast(HTTPResponse, _opener.open(url, timeout=timeout_s))
