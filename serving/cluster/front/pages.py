"""The front's pages about the whole cluster: metrics and scrape targets for Prometheus, and pages for debugging."""

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs

import ray

from serving.api.http.front import LivePage, Viewer
from serving.cluster import decisions
from serving.cluster.front.collector import Collector, Replies, targets
from serving.cluster.replica.loop_watch import LoopWatch
from serving.cluster.replica.snapshots import memory_bytes
from serving.names import FRONT
from serving.protocol.errors import BadMessage
from serving.telemetry.features import FeatureCounts
from serving.telemetry.prometheus import CONTENT_TYPE, exposition
from serving.telemetry.snapshot import FrontSnapshot
from serving.text_file import UnreadableText, read_text

SHORTEST_TOKEN = 16


def metric_pages(collector: Collector, http_port: int, features: FeatureCounts | None = None) -> Mapping[str, LivePage]:
    """Returns the pages for Prometheus. `/metrics` covers every replica, or with `?node=` those on one machine.
    `/metrics/targets` lists the machines for HTTP service discovery, so that each replica is scraped exactly once.

    features: what this process reads for clients; None without feature views."""
    front = FrontSnapshot(node=ray.util.get_node_ip_address(), features=features)

    async def metrics(query: str, viewer: Viewer) -> tuple[str, bytes]:
        snapshot = replace(await collector.snapshot(), front=front)
        if node := parse_qs(query).get("node"):
            snapshot = snapshot.of_node(node[0])
        return CONTENT_TYPE, exposition(snapshot)

    async def discovery(query: str, viewer: Viewer) -> tuple[str, bytes]:
        return "application/json", json.dumps(await asyncio.to_thread(targets, http_port)).encode()

    return {"/metrics": metrics, "/metrics/targets": discovery}


def debug_pages(collector: Collector) -> Mapping[str, LivePage]:
    """Returns the pages for debugging, which are for callers on this machine or with the admin token.

    `/debug/state`: every model with the full state of its replicas and the latest scaling decisions, and the front's
    own process. `/debug/stacks`: the stack of every thread and task of every replica. `/debug/state?watch_loop_s=30`
    makes replicas and the front measure stalls of their event loops for 30 s; the next request shows the result."""
    loop_watch = LoopWatch()

    async def state(query: str, viewer: Viewer) -> tuple[str, bytes]:
        watch = [_seconds(text) for text in parse_qs(query).get("watch_loop_s", [])[:1]]
        front = {"pid": os.getpid(), "memory_bytes": memory_bytes(), "loop": loop_watch.report()}
        cluster, answers = await asyncio.gather(collector.snapshot(), collector.ask("debug_state", *watch))
        models = [
            {
                "name": model.application,
                "version": model.version,
                "state": model.state,
                "reason": model.reason,
                "running": model.running,
                "wanted": model.wanted,
                "limit": model.limit,
                "silent": answers.get(model.application, Replies()).silent,
                "decisions": await asyncio.to_thread(decisions.recent, model.application),
                "replicas": sorted(
                    answers.get(model.application, Replies()).replies, key=lambda told: str(told["replica"])
                ),
            }
            for model in cluster.models
        ]
        for seconds in watch:
            loop_watch.watch(seconds)
        return "application/json", json.dumps({"models": models, FRONT: front}, indent=1).encode()

    async def stacks(query: str, viewer: Viewer) -> tuple[str, bytes]:
        answers = await collector.ask("stacks")
        told = {name: model.replies for name, model in answers.items()}
        return "application/json", json.dumps(told, indent=1).encode()

    return {"/debug/state": state, "/debug/stacks": stacks}


def admin_token_here(path: str | None) -> str:
    """Returns the admin token in a replica, whose machine may lack the file: "" then."""
    return admin_token(path) if path is not None and Path(path).is_file() else ""


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadMessage(f"{text[:20]!r} is no number of seconds", path="watch_loop_s") from None


def admin_token(path: str | None) -> str:
    """Returns the secret in this file, "" for None. Raises ValueError if the file is missing or holds no usable secret:
    otherwise the mistake would go unnoticed."""
    if path is None:
        return ""
    try:
        token = read_text(Path(path)).strip()
    except UnreadableText as error:
        raise ValueError(f"server.admin_token_file: {path} {error}") from error
    if len(token) < SHORTEST_TOKEN or not token.isascii():
        raise ValueError(
            f"server.admin_token_file: {path} holds no secret of {SHORTEST_TOKEN} ASCII characters or more"
        )
    return token
