"""The queue of waiting requests: one sorted line per shape and tenant.

A line is a list in order of rank. This differs from the order of deadlines if priorities differ or deadlines are far
away. With a few thousand entries, inserting into or deleting from the middle of a list is O(n), but moves only a few
kilobytes of pointers and so is faster than a tree. A heap would not do: bisection needs access to the i-th entry.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Hashable, Iterator
from operator import attrgetter

from serving.core.request import Request

Shape = tuple[Hashable, int]  # (group, padded length); requests of equal shape share a batch without further padding
NEVER_NS = 1 << 63

by_rank = attrgetter("rank_ns")
by_deadline = attrgetter("deadline_ns")


class Line(list[Request]):
    """Requests in order of rank. Invariant: no deadline in it is earlier than `earliest_ns` (a lower bound)."""

    __slots__ = ("earliest_ns",)

    def __init__(self, first: Request) -> None:
        super().__init__((first,))
        self.earliest_ns = first.deadline_ns


class RequestQueue:
    """The lines by shape and tenant, and the numbers of waiting requests and rows. Empty lines are not kept.

    Invariant: no deadline in the queue is earlier than `earliest_ns`. It is a lower bound, which `take_due` renews.
    count: the number of waiting requests, for those that ask for every request; the same as `len`.
    """

    def __init__(self) -> None:
        self.lines: dict[Shape, dict[str, Line]] = {}
        self.rows = 0
        self.earliest_ns = NEVER_NS
        self.count = 0
        self._lines_by_tenant: dict[str, int] = {}

    def __len__(self) -> int:
        return self.count

    def has_tenant(self, tenant: str) -> bool:
        return tenant in self._lines_by_tenant

    def tenants(self) -> Iterator[str]:
        return iter(self._lines_by_tenant)

    def add(self, request: Request, shape: Shape) -> None:
        """Inserts a request into its line: O(1) if its rank is the largest, else by bisection."""
        tenant = request.tenant
        by_tenant = self.lines.get(shape)
        if by_tenant is None:
            by_tenant = self.lines[shape] = {}
        line = by_tenant.get(tenant)
        if line is None:
            by_tenant[tenant] = Line(request)
            self._lines_by_tenant[tenant] = self._lines_by_tenant.get(tenant, 0) + 1
        else:
            if line[-1].rank_ns <= request.rank_ns:
                line.append(request)
            else:
                insort(line, request, key=by_rank)
            if request.deadline_ns < line.earliest_ns:
                line.earliest_ns = request.deadline_ns
        if request.deadline_ns < self.earliest_ns:
            self.earliest_ns = request.deadline_ns
        self.rows += request.rows
        self.count += 1

    def remove(self, request: Request, shape: Shape) -> bool:
        """Removes one request, found by bisection on its rank; returns False if it is not in the queue."""
        line: list[Request] = self.lines.get(shape, {}).get(request.tenant, [])
        index = bisect_left(line, request.rank_ns, key=by_rank)
        while index < len(line) and line[index].rank_ns == request.rank_ns:
            if line[index] is request:
                del line[index]
                self._forget(shape, request.tenant, [request])
                return True
            index += 1
        return False

    def take(self, shape: Shape, tenant: str, start: int, stop: int) -> list[Request]:
        """Removes and returns `line[start:stop]`."""
        line = self.lines[shape][tenant]
        taken = line[start:stop]
        if taken:
            del line[start:stop]
            self._forget(shape, tenant, taken)
        return taken

    def take_due(self, limit_ns: Callable[[int], int]) -> list[Request]:
        """Removes and returns all requests whose deadline is before the limit.

        The bounds `earliest_ns` let it skip the queue or a line without looking at each request; so without due
        requests it usually takes O(number of shapes).

        limit_ns: returns the limit for a padded length.
        """
        taken: list[Request] = []
        limits = {length: limit_ns(length) for length in {length for _, length in self.lines}}
        if self.earliest_ns >= max(limits.values(), default=0):
            return taken
        earliest_ns = NEVER_NS
        for shape, by_tenant in list(self.lines.items()):
            for tenant, line in list(by_tenant.items()):
                if line.earliest_ns < limits[shape[1]]:
                    taken += self._take_due(shape, tenant, limits[shape[1]])
                if line and line.earliest_ns < earliest_ns:
                    earliest_ns = line.earliest_ns
        self.earliest_ns = earliest_ns
        return taken

    def _take_due(self, shape: Shape, tenant: str, limit_ns: int) -> list[Request]:
        line = self.lines[shape][tenant]
        due = [request for request in line if request.deadline_ns < limit_ns]
        if due:
            line[:] = [request for request in line if request.deadline_ns >= limit_ns]
            self._forget(shape, tenant, due)
        line.earliest_ns = min(map(by_deadline, line), default=limit_ns)
        return due

    def _forget(self, shape: Shape, tenant: str, gone: list[Request]) -> None:
        self.count -= len(gone)
        self.rows -= sum([request.rows for request in gone])
        by_tenant = self.lines[shape]
        if by_tenant[tenant]:
            return
        del by_tenant[tenant]
        if not by_tenant:
            del self.lines[shape]
        self._lines_by_tenant[tenant] -= 1
        if not self._lines_by_tenant[tenant]:
            del self._lines_by_tenant[tenant]
