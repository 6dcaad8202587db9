"""The shared limit: what a replica asks for and is granted, and the counter of a tenant that all replicas share.

A shared store keeps one `Counter` per tenant and answers an `Ask` by `settle`: here for the store in memory and for
simulations, in `store/redis.py` as a script in Lua. Charges are always booked, even if they leave less than nothing:
what was admitted on credit is paid back before more is granted, so that no way of asking yields more in the long run.
"""

from dataclasses import dataclass

from serving.traffic.quota import DAY_NS, MINUTE_NS, Pace
from serving.traffic.tenants import Tenant

# Tokens that lie in leases while a minute ends are missing in it. The shared pace is this much faster (0.8 %), so that
# a minute in which more is asked than the limit allows still gets the whole limit.
FASTER = 128


def shared_pace(tenant: Tenant) -> Pace:
    """Returns the pace at which the shared limit of a tenant refills."""
    return Pace(MINUTE_NS * FASTER // (tenant.requests_per_minute * (FASTER + 1)), max(2, tenant.at_once))


@dataclass(frozen=True, slots=True)
class Ask:
    """A replica's request to the shared limit, in tokens.

    want: to be granted, or fewer. charged: admitted on credit. returned: granted before and not used. counted: admitted
        while the store was down; they count for the day only, the minute was kept by the replica's own share.
    """

    tenant: str
    pace: Pace
    per_day: int | None
    want: int = 0
    charged: int = 0
    returned: int = 0
    counted: int = 0


@dataclass(frozen=True, slots=True)
class Grant:
    """The answer to an Ask.

    tokens: granted. level: tokens left for all; negative if credit is to be paid back. wait_ns: how long until there is
        one token; 0 if there is. day_left: tokens left today after this grant; None without a daily total.
    """

    tokens: int
    level: int
    wait_ns: int
    day_left: int | None = None


@dataclass(frozen=True, slots=True)
class Counter:
    """The state of a tenant's limit, for all replicas. day: the number of the day that `used` counts."""

    clear_ns: int = 0
    day: int = 0
    used: int = 0


def settle(counter: Counter, ask: Ask, now_ns: int) -> tuple[Counter, Grant]:
    """Books an Ask and decides what is granted. now_ns: the time of day, since days end at midnight UTC."""
    day = now_ns // DAY_NS
    used = counter.used if counter.day == day else 0
    clear_ns = ask.pace.take(counter.clear_ns, now_ns, ask.charged - ask.returned)
    used = max(0, used + ask.charged + ask.counted - ask.returned)
    tokens = min(ask.want, ask.pace.level(clear_ns, now_ns))
    if ask.per_day is not None:
        tokens = min(tokens, ask.per_day - used)
    tokens = max(tokens, 0)
    clear_ns = ask.pace.take(clear_ns, now_ns, tokens)
    used += tokens
    wait_ns = ask.pace.wait_ns(clear_ns, now_ns)
    day_left = None
    if ask.per_day is not None:
        day_left = max(0, ask.per_day - used)
        if not day_left:
            wait_ns = (day + 1) * DAY_NS - now_ns
    return Counter(clear_ns, day, used), Grant(tokens, ask.pace.level(clear_ns, now_ns), wait_ns, day_left)
