"""Workloads of the simulation: the core's `Request` values, in order of arrival."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import merge
from random import Random

from serving.core.request import Request, rank
from serving.testing.simulation.arrivals import Arrivals, poisson, scaled

Lengths = Callable[[Random], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """The requests of one tenant. cancelling: the share of clients that disconnect before their deadline.
    step_ns: the shift in rank for one level of priority; None: the budget."""

    rate_per_ms: float
    budget_ns: int
    tenant: str = ""
    arrivals: Arrivals = poisson
    priority: int = 0
    lengths: Lengths | None = None
    rows: int = 1
    cancelling: float = 0.0
    step_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """The requests of a run. requests: by arrival; `id` is the index. hang_ups: (instant, index) of disconnecting
    clients, ascending."""

    requests: Sequence[Request]
    hang_ups: Sequence[tuple[int, int]] = ()


def single(count: int, seed: int, stream: Stream) -> Workload:
    return mixed(count, seed, [stream])


def mixed(count: int, seed: int, streams: Sequence[Stream]) -> Workload:
    """Draws about `count` requests in total, of each stream in proportion to its rate and with its own seed."""
    total = sum(stream.rate_per_ms for stream in streams)
    drafts = [
        _drafts(round(count * stream.rate_per_ms / total), Random(f"{seed}/{place}"), stream)
        for place, stream in enumerate(streams)
    ]
    requests: list[Request] = []
    hang_ups: list[tuple[int, int]] = []
    for arrived_ns, length, hang_up_ns, place in merge(
        *([(*draft, place) for draft in stream] for place, stream in enumerate(drafts))
    ):
        stream = streams[place]
        deadline_ns = arrived_ns + stream.budget_ns
        request = Request(
            id=len(requests),
            tenant=stream.tenant,
            rows=stream.rows,
            length=length,
            group=None,
            arrived_ns=arrived_ns,
            deadline_ns=deadline_ns,
            expires_ns=deadline_ns,
            rank_ns=rank(arrived_ns, deadline_ns, stream.priority, stream.step_ns or stream.budget_ns),
            payload=None,
        )
        if hang_up_ns:
            hang_ups.append((hang_up_ns, request.id))
        requests.append(request)
    return Workload(requests, sorted(hang_ups))


def bert_lengths(rng: Random) -> int:
    """Draws the number of tokens of a short text: log-normal, median 28, from 4 to 128."""
    return max(4, min(128, int(rng.lognormvariate(3.33, 0.6))))


def _drafts(count: int, rng: Random, stream: Stream) -> list[tuple[int, int, int]]:
    """Draws a stream's requests: (arrival, length, instant of disconnecting or 0)."""
    instants = scaled(stream.arrivals(rng, count), stream.rate_per_ms)
    lengths = [stream.lengths(rng) for _ in instants] if stream.lengths else [1] * len(instants)
    hang_ups = [0] * len(instants)
    if stream.cancelling:
        hang_ups = [
            instant + rng.randrange(1, stream.budget_ns) if rng.random() < stream.cancelling else 0
            for instant in instants
        ]
    return list(zip(instants, lengths, hang_ups, strict=True))
