"""Probes from outside whether a model answers. Ray reports a model as running before HAProxy knows all its replicas."""

import json
import re
import time
from collections.abc import Collection
from typing import Any
from urllib.request import Request

import grpc

from serving.api.admission.secret import own_token
from serving.core.clock import SystemClock
from serving.direct import GRPC_OPTIONS, ask
from serving.protocol.pb import SERVICE, decode, encode

POLL_S = 0.25
FAILED = ("DEPLOY_FAILED", "UNHEALTHY")
# An error of the model's owner is reported as a sentence. Ray's traceback around it does not help the reader.
_SENTENCE = re.compile(r"^models\.[\w.]+\.(?:SpecMismatch|ModelNotLoadable): (.+)", re.MULTILINE | re.DOTALL)


class NeverUp(Exception):
    """The application failed to start, and waiting would not help. The text gives the cause."""


def expected(application: Any | None) -> int:
    """Returns how many replicas have to answer before an application is up; 0 while Ray does not report it as running.

    application: from Serve's status, None if it is not there. For a sleeping model, which has no replica, 1: a request
        wakes it.
    Raises NeverUp if the application has failed.
    """
    if application is None:
        return 0
    if application.status in FAILED:
        raise NeverUp(cause(application))
    if application.status != "RUNNING":
        return 0
    running: int = sum(one.replica_states.get("RUNNING", 0) for one in application.deployments.values())
    return max(1, running)


def replacing(application: Any | None, before: Collection[str]) -> int:
    """Returns how many replicas have to answer before an update is done; 0 while Ray has not started all of them.

    application: from Serve's details, which list every replica; None if it is not there.
    before: ids of the replicas that the update replaces.
    Raises NeverUp if the update has failed.
    """
    if application is None or application.status == "DELETING":
        return 0
    if application.status in FAILED:
        raise NeverUp(cause(application))
    deployments = application.deployments.values()
    wanted = sum(one.target_num_replicas for one in deployments)
    replicas = [replica for one in deployments for replica in one.replicas]
    new = sum(replica.state == "RUNNING" and replica.replica_id not in before for replica in replicas)
    return max(1, wanted) if new >= wanted else 0


def hears(url: str, path: str, count: int, *, but_not: Collection[str] = ()) -> bool:
    """Returns whether `count` different replicas answer at this server below a model's path, and none of `but_not`.
    Blocks.

    Each request uses a new connection, so that HAProxy balances it anew. There are more tries than replicas, because
    Ray's proxy chooses at random."""
    heard: set[str] = set()
    for _ in range(4 * count):
        try:
            with ask(own_request(f"{url}{path}/config"), timeout_s=2) as response:
                replica = json.load(response)["parameters"]["replica"]["string_value"]
        except OSError:
            return False
        if replica in but_not:
            return False
        heard.add(replica)
        if len(heard) == count and not but_not:
            return True
    return len(heard) >= count


def own_request(url: str) -> Request:
    """Returns a request of this server to itself, which needs no key. Call it where the server's secret is known."""
    return Request(url, headers={"authorization": f"Bearer {own_token()}"})


def answers(url: str) -> bool:
    try:
        with ask(url, timeout_s=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def is_ready_over_grpc(address: str, model: str, version: str = "") -> bool | None:
    """Returns the answer to a ModelReady call without the metadata `application`; None if the call fails. Blocks."""
    asked = encode("ModelReadyRequest", {"name": model, "version": version})
    with grpc.insecure_channel(address, GRPC_OPTIONS) as channel:
        ask_ready = channel.unary_unary(f"/{SERVICE}/ModelReady")
        own = (("authorization", f"Bearer {own_token()}"),)
        try:
            return bool(decode("ModelReadyResponse", ask_ready(asked, timeout=2, metadata=own)).ready)
        except grpc.RpcError:
            return None


def answers_over_grpc(address: str, model: str, patience_s: float = 10.0) -> bool:
    """Returns whether a call without the metadata `application` reaches the model within `patience_s`. Blocks.

    HAProxy learns of a replica's HTTP server and of its gRPC server at different times, so this may lag behind HTTP."""
    give_up_ns = SystemClock.now_ns() + int(patience_s * 1e9)
    while SystemClock.now_ns() < give_up_ns:
        if is_ready_over_grpc(address, model):
            return True
        time.sleep(POLL_S)
    return False


def cause(application: Any) -> str:
    """Returns why an application did not start: the message of the failed deployment, else that of the application."""
    messages = [deployment.message for deployment in application.deployments.values() if deployment.message]
    text: str = "\n".join(messages) or application.message
    sentence = _SENTENCE.search(text)
    return sentence[1].strip() if sentence else text


def short_cause(application: Any) -> str:
    """Returns the cause as one line: the last one, which in a traceback names the error."""
    lines = cause(application).strip().splitlines()
    return lines[-1].strip() if lines else ""
