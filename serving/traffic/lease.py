"""Takes tokens of a lease, for one tenant in one replica, and decides when to ask for more and for how many.

A request costs a decrement while there are tokens. Tokens come from the shared limit, for the demand of some tenths of
a second; what is not used by then is given back. A tenant that was idle begins with a credit, which is charged
at once. While the shared store does not answer, the replica keeps to its own share (`alone.py`).
"""

from serving.traffic.alone import DAY, RATE, Alone, Reason, Sharing
from serving.traffic.quota import DAY_NS
from serving.traffic.sharing import Ask, Grant, shared_pace
from serving.traffic.tenants import Tenant

TURN_NS = 100_000_000  # how often leases are renewed
SOONEST_NS = 10_000_000  # how soon again if credit was used: it is charged at once, since there is little of it
AHEAD_NS = 300_000_000  # a lease is for the demand of this time
LASTS_NS = 500_000_000  # from when it was asked for
PATIENCE_NS = (
    1_000_000_000  # without requests for so long, a tenant is idle; and the longest pause between asking again
)
CREDIT_DIVISOR = 2  # beside its lease, a replica may use this part of what is left for all, before it has asked
SMOOTH_NS = 300_000_000  # over which demand is averaged


class Lease:
    """The tokens of one tenant in one replica. `refused` and `admitted` count its requests.

    tokens: of the lease, until `until_ns`. is_idle: it has had no requests for a while and needs no renewal;
        `Sharing.wake` is called when that changes, and whenever credit is used.
    """

    __slots__ = (
        "_alone", "_asked", "_asked_ns", "_credit", "_day_left", "_demand", "_granted", "_is_scarce", "_level",
        "_looked_ns", "_next_ns", "_owed", "_pace", "_requests", "_requests_ns", "_sharing", "_slowly",
        "_uncounted", "is_idle", "refused", "tenant", "tokens", "until_ns",
    )  # fmt: skip

    def __init__(self, tenant: Tenant, sharing: Sharing, now_ns: int) -> None:
        self.tenant = tenant
        self.refused = 0
        self.is_idle = True
        self._sharing = sharing
        self._pace = shared_pace(tenant)
        self.tokens = 0  # of the lease, until `_until_ns`
        self.until_ns = now_ns
        self._granted = 0  # all tokens so far, less those given back
        self._slowly = 0  # all requests so far that were admitted without a token
        self._owed = 0  # those admitted on credit that are not charged yet
        self._uncounted = 0  # those admitted alone that are not reported yet, for the total of the day
        self._alone: Alone | None = None
        self._asked: Ask | None = None
        self._asked_ns = now_ns
        self._level = tenant.at_once  # of the shared limit by the last answer
        self._is_scarce = False
        self._next_ns = now_ns  # when the shared limit has a token, by the last answer
        self._day_left: int | None = None
        self._credit = 0  # until it awakes
        self._demand = 0.0  # requests per ns
        self._requests = 0  # all requests at the last look
        self._looked_ns = now_ns
        self._requests_ns = now_ns  # the last look that found new ones

    @property
    def admitted(self) -> int:
        return self._granted - self.tokens + self._slowly

    def take(self, now_ns: int) -> bool:
        """Returns whether a request may pass, and counts it."""
        if self.tokens > 0 and now_ns < self.until_ns:
            self.tokens -= 1
            return True
        return self._take_without(now_ns)

    def _take_without(self, now_ns: int) -> bool:
        if self.is_idle:
            self._awake(now_ns)
        since_ns = self._sharing.alone_since_ns
        if since_ns is not None:
            alone = self._alone
            if alone is None or alone.since_ns != since_ns:
                alone = self._share()
            if alone.take(now_ns):
                self._slowly += 1
                self._uncounted += 1
                return True
        elif self._credit > 0:
            self._credit -= 1
            self._owed += 1
            self._slowly += 1
            self._sharing.wake(self.tenant.name)
            return True
        self.refused += 1
        return False

    def refusal(self, now_ns: int) -> tuple[Reason, int]:
        """Returns why a request was refused just now, and when to try again, in ns from now."""
        if self._sharing.alone_since_ns is not None:
            return self._share().refusal(now_ns)
        return (DAY if self._day_left == 0 else RATE), max(self._next_ns - now_ns, TURN_NS)

    def remaining(self, now_ns: int) -> int:
        """Returns how many requests could be admitted at once now if all came to this replica, as far as it knows."""
        here = self.tokens if now_ns < self.until_ns else 0
        if self._sharing.alone_since_ns is not None:
            return here + self._share().level(now_ns)
        level = max(0, self._level_then(now_ns) - self._owed)
        left = self._day_left_then(now_ns)
        return here + (level if left is None else min(level, left))

    def day_left(self, now_ns: int) -> int | None:
        """Returns how many more requests there may be today if all came to this replica, as far as it knows; None
        without a daily total."""
        alone = self._sharing.alone_since_ns is not None
        left = self._share().day_left(now_ns) if alone else self._day_left_then(now_ns)
        return None if left is None else left + (self.tokens if now_ns < self.until_ns else 0)

    def ask(self, now_ns: int) -> Ask | None:
        """Decides what to ask of the shared limit now; None if nothing. An Ask is followed by `granted` or `lost`."""
        has_missed = self._look(now_ns)
        if now_ns - self._requests_ns >= PATIENCE_NS:
            self.is_idle = True
            return self._asking(now_ns, want=0, returned=self.tokens)
        ahead = max(round(self._demand * AHEAD_NS), has_missed)
        if not self._is_scarce and ahead < 2:
            ahead = 0  # for a request now and then there is credit: one charge each, and nothing to give back
        has_use = ahead > 0 or self._is_scarce
        keep = max(ahead, 1) if has_use and now_ns < self.until_ns else 0
        returned = self.tokens - keep if self.tokens > 2 * keep else 0
        left = self.tokens - returned
        want = max(0, ahead - left) if 2 * left < ahead and self._may_gain(now_ns) else 0
        is_ending = left > 0 and self.until_ns - now_ns <= 2 * TURN_NS
        is_due = self._is_scarce and not left and now_ns >= self._next_ns  # to learn whether it is scarce still
        return self._asking(now_ns, want, returned, is_due=is_ending or is_due)

    def granted(self, grant: Grant) -> None:
        """Takes the answer to the last Ask."""
        asked, self._asked = self._asked, None
        assert asked is not None, "a grant answers an Ask"
        self.tokens += grant.tokens
        self._granted += grant.tokens
        self.until_ns = self._asked_ns + LASTS_NS
        self._level = grant.level
        self._next_ns = self._asked_ns + grant.wait_ns
        self._day_left = grant.day_left
        self._is_scarce = grant.tokens < asked.want or grant.level < 1 or grant.day_left == 0
        self._credit = 0 if self._is_scarce else max(1, grant.level // CREDIT_DIVISOR)
        self._alone = None

    def lost(self) -> None:
        """Notes that the last Ask was not answered. What was given back is gone; what is owed stays owed."""
        asked, self._asked = self._asked, None
        if asked is not None:
            self._owed += asked.charged
            self._uncounted += asked.counted

    def end(self) -> Ask | None:
        """Returns the last Ask, which gives back all that is left and needs no answer; None if nothing is."""
        return self._asking(self._asked_ns, want=0, returned=self.tokens)

    def _share(self) -> Alone:
        since_ns = self._sharing.alone_since_ns
        assert since_ns is not None
        if self._alone is None or self._alone.since_ns != since_ns:
            self._alone = Alone(self.tenant, self._sharing, self._day_left, self._owed)
            self._owed = 0
        return self._alone

    def _awake(self, now_ns: int) -> None:
        self.is_idle = False
        self._requests_ns = self._looked_ns = now_ns
        self._demand = 0.0
        if now_ns >= self._next_ns:
            self._level, self._next_ns = self._level_then(now_ns), now_ns
            self._credit = self._level  # others may use it too; then all of them pay the debt
        self._sharing.wake(self.tenant.name)

    def _day_left_then(self, now_ns: int) -> int | None:
        """Returns what is left of the day beside the lease, if nobody has taken any since the last answer."""
        per_day, ends_ns = self.tenant.per_day, self._sharing.day_ends_ns
        if (
            per_day is None
            or self._day_left is None
            or (now_ns - ends_ns) // DAY_NS != (self._asked_ns - ends_ns) // DAY_NS
        ):
            return per_day
        return max(0, self._day_left - self._owed)

    def _level_then(self, now_ns: int) -> int:
        """Returns the level of the shared limit now, if nobody has taken any since the last answer."""
        if now_ns < self._next_ns:
            return 0
        level = max(self._level, 1) + (now_ns - self._next_ns) // self._pace.interval_ns
        return min(level, self._pace.burst)

    def _look(self, now_ns: int) -> bool:
        """Updates the estimate of demand. Returns whether there were requests, and no token is left for the next."""
        requests = self.admitted + self.refused
        new, passed_ns = requests - self._requests, now_ns - self._looked_ns
        if passed_ns > 0:
            self._demand += (new / passed_ns - self._demand) * min(1.0, passed_ns / SMOOTH_NS)
        self._requests, self._looked_ns = requests, now_ns
        if new:
            self._requests_ns = now_ns
        return new > 0 and self.tokens == 0 and self._credit == 0

    def _may_gain(self, now_ns: int) -> bool:
        """Returns whether more may be granted than at the last time. Others may have given some back after a while."""
        return not self._is_scarce or now_ns >= min(self._next_ns, self._asked_ns + PATIENCE_NS)

    def _asking(self, now_ns: int, want: int, returned: int, *, is_due: bool = False) -> Ask | None:
        counted = 0 if self.tenant.per_day is None else self._uncounted
        if not (want or returned or self._owed or counted or is_due):
            return None
        self.tokens -= returned
        self._granted -= returned
        self._asked = Ask(self.tenant.name, self._pace, self.tenant.per_day, want, self._owed, returned, counted)
        self._asked_ns = now_ns
        self._owed -= self._asked.charged
        self._uncounted -= counted
        return self._asked
