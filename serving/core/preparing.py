"""Decides which request is prepared next by the model's own `prepare` (decoding, tokenizing), and when.

Preparing may take as long as computing, so a request is prepared only when it is known that it will be served: its
batch is one of the next two, and it would be in time in a batch of that size. Others wait as they came: they cost
nothing if they are given up. Tenants take turns, each with its part of the next two batches, and the requests of a
tenant go by rank.
"""

from collections.abc import Callable

from serving.core.batcher import Batcher
from serving.core.queue import RequestQueue, Shape
from serving.core.request import NO_DEADLINE_NS, Request

ANY_SHAPE: Shape = (None, 1)
BATCHES_AHEAD = 2  # the one that the lane takes next, and one to fill it up with while that is computed
LEAST_ROWS = 2  # of a tenant, however small its part is
REMEMBERED = 8  # calls over which the time of preparing is averaged


def anyone(tenant: str) -> bool:
    return True


class Preparing:
    """The requests that wait to be prepared, and those that are being prepared. They enter the batcher afterwards."""

    def __init__(self, batcher: Batcher) -> None:
        self.waiting = RequestQueue()
        self._batcher = batcher
        self._under_way: dict[Request, None] = {}
        self._length = batcher.sizes.lengths[0]  # it is known only afterwards
        self._took_ns = 0

    def add(self, request: Request) -> None:
        self.waiting.add(request, ANY_SHAPE)
        self._batcher.unprepared_rows += request.rows

    def remove(self, request: Request) -> None:
        """Forgets a request that was prepared, or whose outcome is known."""
        if self.waiting.remove(request, ANY_SHAPE) or request in self._under_way:
            self._under_way.pop(request, None)
            self._batcher.unprepared_rows -= request.rows

    def took(self, ns: int) -> None:
        """Averages into the time of preparing one request."""
        self._took_ns += (ns - self._took_ns) // REMEMBERED

    def next(self, now_ns: int, may: Callable[[str], bool] = anyone) -> Request | None:
        """Returns the request to prepare now, which then is under way; None if none is to be prepared before the next
        batch is cut. may: whether a tenant may have another request prepared now."""
        by_tenant = self.waiting.lines.get(ANY_SHAPE, {})
        ahead = self._rows_ahead() if by_tenant else {}
        for tenant, line in by_tenant.items():
            if not may(tenant):
                continue
            share = self._share(tenant, ahead)
            own_rows = ahead.get(tenant, 0)
            if own_rows >= self._most_rows(line[-1], share):
                continue
            # The others' turns come between its own.
            rows_before = max(sum(ahead.values()), int(own_rows / share))
            request = self._first_in_time(line, rows_before, now_ns)
            if request is not None:
                self.waiting.remove(request, ANY_SHAPE)
                self._under_way[request] = None
                if tenant in by_tenant:  # behind the others
                    by_tenant[tenant] = by_tenant.pop(tenant)
                return request
        return None

    def late(self, now_ns: int) -> list[Request]:
        """Returns the requests that can no longer be in time; they stay until they are removed."""
        done_ns = self._batcher.earliest_ns(now_ns)
        waiting = [one for line in self.waiting.lines.get(ANY_SHAPE, {}).values() for one in line]
        late = [request for request in waiting if request.deadline_ns < done_ns]
        return late + [request for request in self._under_way if request.deadline_ns < now_ns]

    def __len__(self) -> int:
        return len(self.waiting) + len(self._under_way)

    def _rows_ahead(self) -> dict[str, int]:
        """Returns the rows of each tenant that are prepared or being prepared."""
        rows: dict[str, int] = {}
        for request in self._under_way:
            rows[request.tenant] = rows.get(request.tenant, 0) + request.rows
        for by_tenant in self._batcher.queue.lines.values():
            for tenant, line in by_tenant.items():
                rows[tenant] = rows.get(tenant, 0) + sum([request.rows for request in line])
        return rows

    def _share(self, tenant: str, ahead: dict[str, int]) -> float:
        """Returns the tenant's share of the device among the tenants that wait."""
        weight = self._batcher.shares.weight
        return weight(tenant) / sum(map(weight, self.waiting.lines[ANY_SHAPE].keys() | ahead.keys()))

    def _most_rows(self, typical: Request, share: float) -> float:
        """Returns the rows that a tenant may have ahead: its share of the batches ahead, for each waiting shape."""
        shapes = max(1, len(self._batcher.queue.lines))
        return max(LEAST_ROWS, BATCHES_AHEAD * self._batch_rows(typical) * shapes * share)

    def _batch_rows(self, request: Request) -> int:
        """Returns the rows of a batch for requests like this one: all that pay off, in at most half of the budget."""
        latency, sizes = self._batcher.latency, self._batcher.sizes
        rows = sizes.useful_rows(latency, self._length)
        budget_ns = request.deadline_ns - request.arrived_ns
        if budget_ns < NO_DEADLINE_NS:
            rows = latency.largest_feasible_rows(budget_ns // 2, self._length, rows)
        return max(1, rows)

    def _first_in_time(self, line: list[Request], rows_before: int, now_ns: int) -> Request | None:
        """Returns the first request by rank that would be in time after `rows_before`, in a batch as large as pays off.

        If there is none and nothing is before it, the first that would be in time alone, or the last of all: the lane
        would idle otherwise."""
        batcher = self._batcher
        ready_ns = now_ns + self._took_ns
        free_ns = batcher.earliest_ns(now_ns, rows=0)
        needs: dict[int, tuple[int, int]] = {}  # by budget, which is the same for most: (rows, time) of a batch
        for request in line:
            budget_ns = request.deadline_ns - request.arrived_ns
            if budget_ns not in needs:
                rows = self._batch_rows(request)
                needs[budget_ns] = rows, batcher.latency.plan_ns(batcher.sizes.padded_rows(rows), self._length)
            rows, batch_ns = needs[budget_ns]
            begins_ns = max(free_ns + batch_ns * (rows_before // rows), ready_ns)
            if request.deadline_ns >= begins_ns + batch_ns + batcher.answer_ns:
                return request
        if rows_before:
            return None
        alone_ns = batcher.earliest_ns(ready_ns)
        return next((request for request in line if request.deadline_ns >= alone_ns), line[-1])
