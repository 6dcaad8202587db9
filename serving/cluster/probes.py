"""Asks a server from outside whether a model answers yet: Ray calls it running before HAProxy has learned of all its
replicas."""

import json
import re
import time
from collections.abc import Collection
from typing import Any

import grpc

from serving.core.clock import SystemClock
from serving.direct import GRPC_OPTIONS, ask
from serving.names import model_path
from serving.protocol.pb import SERVICE, decode, encode

POLL_S = 0.25
FAILED = ("DEPLOY_FAILED", "UNHEALTHY")
# What the owner of a model did not keep to is told in a sentence; how Ray came to hear of it helps nobody.
_SENTENCE = re.compile(r"^models\.[\w.]+\.(?:SpecMismatch|ModelNotLoadable): (.+)", re.MULTILINE | re.DOTALL)


class NeverUp(Exception):
    """It did not come up, and waiting would not help; the text says why."""


def expected(application: Any | None) -> int:
    """How many replicas have to be heard before an application is up; 0 while Ray itself does not call it running.

    application: from Serve's status, None if it is not there. One that sleeps has no replica and yet has to answer.
    Raises NeverUp.
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
    """How many replicas have to be heard before an update is done; 0 while Ray has not started all of them.

    application: from Serve's details, which name every replica, None if it is not there.
    before: ids of the replicas that the update replaces.
    Raises NeverUp.
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


def hears(url: str, model: str, count: int, *, but_not: Collection[str] = ()) -> bool:
    """Whether so many different replicas of a model answer at this server, and none of these. Each time on a new
    connection, so HAProxy takes them in turn; what chooses at random gets more tries than there are replicas."""
    heard: set[str] = set()
    for _ in range(4 * count):
        try:
            with ask(f"{url}{model_path(model)}/config", timeout_s=2) as response:
                replica = json.load(response)["parameters"]["replica"]["string_value"]
        except OSError:
            return False
        if replica in but_not:
            return False
        heard.add(replica)
        if len(heard) == count and not but_not:
            return True
    return len(heard) >= count


def answers(url: str) -> bool:
    try:
        with ask(url, timeout_s=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def is_ready_over_grpc(address: str, model: str) -> bool | None:
    """What is answered to a call that names only the model; None if nobody answers."""
    asked = encode("ModelReadyRequest", {"name": model})
    with grpc.insecure_channel(address, GRPC_OPTIONS) as channel:
        try:
            return bool(
                decode("ModelReadyResponse", channel.unary_unary(f"/{SERVICE}/ModelReady")(asked, timeout=2)).ready
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
    text: str = "\n".join(messages) or application.message
    sentence = _SENTENCE.search(text)
    return sentence[1].strip() if sentence else text


def short_cause(application: Any) -> str:
    """The same as one line: of a traceback the last, which names the error."""
    lines = cause(application).strip().splitlines()
    return lines[-1].strip() if lines else ""
