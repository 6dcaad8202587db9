"""The table of `headway top`: the present state of each model, from two answers of `/debug/state`.

Rates are those between the two looks. A replica that was missing at the first look counts from its start.
"""

import http.client
import json
import urllib.error
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from typing import Any
from urllib.request import Request

from rich.table import Table

from serving.direct import ask

State = dict[str, Any]
PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row of the table: a model between two looks.

    p95_ms: the upper edge of the histogram bucket that holds the 95th percentile; infinite in the last bucket, None
    without requests. ended: requests per second by outcome. why: the reason of the latest scaling decision, or "".
    """

    name: str
    state: str
    running: int
    wanted: int
    limit: int | None
    silent: int
    queued: int
    in_flight: int
    wait_ms: float
    busy_ratio: float
    mean_batch_rows: float | None
    p95_ms: float | None
    ended: dict[str, float]
    why: str


def look(url: str, key: str = "") -> State:
    """Returns the answer of the server's `/debug/state`. Raises OSError if the server cannot be reached, refuses the
    request, or is not a Headway server. key: an API key, if the server asks for one."""
    address = (url if "://" in url else f"http://{url}").rstrip("/")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with ask(Request(f"{address}/debug/state", headers=headers), timeout_s=PATIENCE_S) as answer:
            state: State = json.load(answer)
    except urllib.error.HTTPError:
        raise
    except urllib.error.URLError as error:
        raise OSError(error.reason) from error
    except (ValueError, http.client.HTTPException) as error:
        raise OSError(f"no Headway answers there ({error})") from error
    return state


def lines(before: State, after: State, seconds: float) -> list[Line]:
    """Compares two looks that are this many seconds apart. Returns one line per model of the later one."""
    earlier = {replica["replica"]: replica for model in before["models"] for replica in model["replicas"]}
    return [_line(model, earlier, seconds) for model in after["models"]]


def _line(model: State, earlier: dict[str, State], seconds: float) -> Line:
    replicas = model["replicas"]
    pairs = [(earlier.get(replica["replica"], {}), replica) for replica in replicas]
    ended: Counter[str] = Counter()
    durations: Counter[float] = Counter()
    for was, now in pairs:
        ended.update(now["ended"])
        ended.subtract(was.get("ended", {}))
        edges = [*now["request_ns"]["bounds"], float("inf")]
        durations.update(dict(zip(edges, now["request_ns"]["counts"], strict=True)))
        if was:
            durations.subtract(dict(zip(edges, was["request_ns"]["counts"], strict=True)))
    batches = sum(now["batches"] - was.get("batches", 0) for was, now in pairs)
    rows = sum(now["rows"] - was.get("rows", 0) for was, now in pairs)
    busy_ns = sum((now["busy_ns"] - was["busy_ns"]) / now["lanes"] for was, now in pairs if was)
    known = sum(bool(was) for was, _ in pairs)
    return Line(
        name=model["name"],
        state=model["state"],
        running=model["running"],
        wanted=model["wanted"],
        limit=model["limit"],
        silent=model["silent"],
        queued=sum(replica["queued"] for replica in replicas),
        in_flight=sum(replica["in_flight"] for replica in replicas),
        wait_ms=max((replica["expected_wait_ms"] for replica in replicas), default=0.0),
        busy_ratio=min(1.0, busy_ns / (known * seconds * 1e9)) if known else 0.0,
        mean_batch_rows=rows / batches if batches else None,
        p95_ms=_quantile_ms(durations, 0.95),
        ended={outcome: count / seconds for outcome, count in sorted(ended.items()) if count},
        why=model["decisions"][-1]["reason"] if model["decisions"] else "",
    )


def _quantile_ms(durations: Counter[float], share: float) -> float | None:
    edges = sorted(durations)
    sums = list(accumulate(durations[edge] for edge in edges))
    if not sums or not sums[-1]:
        return None
    return edges[bisect_left(sums, share * sums[-1])] / 1e6


def table(found: list[Line]) -> Table:
    """Returns the table for the terminal."""
    result = Table(box=None, header_style="dim", pad_edge=False)
    result.add_column("model", no_wrap=True)
    for column in ("replicas", "queued", "in flight", "wait ms", "busy", "batch", "p95 ms", "answers/s"):
        result.add_column(column, justify="right", overflow="fold")
    # These columns are mostly empty, and a terminal may have only 80 columns: they are left out where they are.
    others = [
        ", ".join(f"{outcome} {rate:.1f}" for outcome, rate in line.ended.items() if outcome != "Completed")
        for line in found
    ]
    if any(others):
        result.add_column("others/s", style="red")
    if any(line.why for line in found):
        result.add_column("last scaling")
    for line, others_of_line in zip(found, others, strict=True):
        optional = ([others_of_line] if any(others) else []) + ([line.why] if any(one.why for one in found) else [])
        result.add_row(
            line.name if line.state == "READY" else f"[yellow]{line.name} {line.state.lower()}[/]",
            _replicas(line),
            str(line.queued),
            str(line.in_flight),
            f"{line.wait_ms:.0f}",
            f"{line.busy_ratio:.0%}",
            "-" if line.mean_batch_rows is None else f"{line.mean_batch_rows:.1f}",
            "-" if line.p95_ms is None else f"≤ {line.p95_ms:.0f}" if line.p95_ms < float("inf") else "∞",
            f"{line.ended.get('Completed', 0.0):.1f}",
            *optional,
        )
    return result


def _replicas(line: Line) -> str:
    text = f"{line.running}" if line.running == line.wanted else f"[yellow]{line.running} of {line.wanted}[/]"
    text += f" (≤ {line.limit})" if line.limit else ""
    return f"{text} [red]{line.silent} silent[/]" if line.silent else text
