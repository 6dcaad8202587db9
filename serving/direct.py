"""Requests to Headway's own servers, which never go through a proxy, whatever `http_proxy` and similar variables say.

A proxy cannot reach the loopback of this machine, and it should not see `/debug`.
"""

import urllib.request
from http.client import HTTPResponse
from typing import cast

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
GRPC_OPTIONS = (("grpc.enable_http_proxy", 0),)  # for every gRPC channel to a server of our own


def ask(url: str | urllib.request.Request, *, timeout_s: float) -> HTTPResponse:
    """Returns the answer to the request; the caller closes it. Raises the errors of `urllib.request.urlopen`."""
    return cast(HTTPResponse, _opener.open(url, timeout=timeout_s))
