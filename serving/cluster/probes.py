"""Asks a server from outside whether a model answers yet: Ray calls it running before HAProxy has learned of it."""

import time
import urllib.request
from typing import Any

import grpc

from serving.core.clock import SystemClock
from serving.protocol.pb import SERVICE, decode, encode

POLL_S = 0.25


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def is_ready_over_grpc(address: str, model: str) -> bool | None:
    """What is answered to a call that names only the model; None if nobody answers."""
    ask = encode("ModelReadyRequest", {"name": model})
    with grpc.insecure_channel(address) as channel:
        try:
            return bool(
                decode("ModelReadyResponse", channel.unary_unary(f"/{SERVICE}/ModelReady")(ask, timeout=2)).ready
            )
        except grpc.RpcError:
            return None


def answers_over_grpc(address: str, model: str, patience_s: float = 10.0) -> bool:
    """Whether a call that names only the model reaches it. HAProxy learns of a replica's two servers one after the
    other."""
    give_up_ns = SystemClock.now_ns() + int(patience_s * 1e9)
    while SystemClock.now_ns() < give_up_ns:
        if is_ready_over_grpc(address, model):
            return True
        time.sleep(POLL_S)
    return False


def cause(application: Any) -> str:
    """Why it did not start: the message of the application or, better, of the deployment that failed."""
    messages = [deployment.message for deployment in application.deployments.values() if deployment.message]
    return "\n".join(messages) or application.message
