"""What the front shows of the whole cluster: metrics for Prometheus, and where Prometheus should ask."""

import asyncio
import json
from collections.abc import Mapping
from urllib.parse import parse_qs

from serving.api.front import Page
from serving.cluster.collector import Collector, targets
from serving.telemetry.prometheus import CONTENT_TYPE, exposition


def metric_pages(collector: Collector, http_port: int) -> Mapping[str, Page]:
    """`/metrics` tells of every replica, or with `?node=` of those on one machine; `/metrics/targets` lists the
    machines for Prometheus' HTTP service discovery, so that none is left out and none counted twice."""

    async def metrics(query: str) -> tuple[str, bytes]:
        snapshot = await collector.snapshot()
        if node := parse_qs(query).get("node"):
            snapshot = snapshot.of_node(node[0])
        return CONTENT_TYPE, exposition(snapshot)

    async def discovery(query: str) -> tuple[str, bytes]:
        return "application/json", json.dumps(await asyncio.to_thread(targets, http_port)).encode()

    return {"/metrics": metrics, "/metrics/targets": discovery}
