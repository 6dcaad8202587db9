"""Watches for the notice that the cloud takes this machine back, and makes Ray drain the node before that.

AWS gives a spot instance two minutes' notice, at an address that only the instance can reach. A draining node gets no
new replicas; Ray Serve starts replacements on other nodes first, and then lets the replicas here finish their requests.
"""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path

from serving.direct import ask as ask_directly
from serving.operate.processes import StopSignal

METADATA_URL = "http://169.254.169.254"
POLL_S = 5.0  # as AWS advises
TIMEOUT_S = 2.0

Say = Callable[[str], None]


def watch(say: Say, stop: StopSignal, *, url: str = METADATA_URL, drain: Callable[[float], None] | None = None) -> None:
    """Polls for the notice, and drains this node when it comes. Returns after that, or at a signal to stop.

    Errors of the metadata service and of the drain are reported and tried again at the next poll."""
    trouble = ""
    while not stop.wait(POLL_S):
        try:
            left_s = notice_s(url, datetime.now(UTC))
        except (OSError, ValueError, LookupError, TypeError, HTTPException) as error:
            if str(error) != trouble:
                trouble = str(error)
                say(f"no answer from {url}: {trouble}; trying again")
            continue
        if left_s is not None:
            say(f"the cloud takes this machine back in {left_s:.0f} s: draining")
            try:
                (drain or drain_this_node)(left_s)
            except Exception as error:  # Ray raises its own kinds, and its command may be missing
                say(f"draining failed, trying again: {error}")
            else:
                return


def notice_s(url: str, now: datetime) -> float | None:
    """Returns the seconds until the machine is taken back; None without a notice.

    Raises OSError, or ValueError, LookupError, TypeError and HTTPException for a malformed answer."""
    header = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    ask_token = urllib.request.Request(f"{url}/latest/api/token", method="PUT", headers=header)
    with ask_directly(ask_token, timeout_s=TIMEOUT_S) as answer:
        token = answer.read().decode()
    ask = urllib.request.Request(
        f"{url}/latest/meta-data/spot/instance-action", headers={"X-aws-ec2-metadata-token": token}
    )
    try:
        with ask_directly(ask, timeout_s=TIMEOUT_S) as answer:
            action = json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == 404:  # there is no notice
            return None
        raise
    return max(0.0, (datetime.fromisoformat(action["time"]) - now).total_seconds())


def drain_this_node(left_s: float) -> None:
    """Drains the node of this machine. Raises CalledProcessError if Ray rejects it."""
    import ray

    ray.init(address="auto", log_to_driver=False, ignore_reinit_error=True)
    drain_node(ray.get_runtime_context().get_node_id(), left_s)


def drain_node(node_id: str, left_s: float) -> None:
    """Drains a node by Ray's command, because Ray's Python interface for it is private. Raises CalledProcessError."""
    command = [str(Path(sys.executable).with_name("ray")), "drain-node", "--node-id", node_id]
    command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "taken back by the cloud"]
    subprocess.run([*command, "--deadline-remaining-seconds", str(int(left_s))], check=True)
