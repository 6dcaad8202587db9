"""Limits how often one address may show a credential that is not valid. A bounded table of steps without a clock."""

from ipaddress import IPv6Address, ip_address

MOST_ADDRESSES = 4096
BURST = 30  # failures at once
EVERY_NS = 1_000_000_000  # one more is allowed after this time
_FULL_NS = BURST * EVERY_NS


class Failures:
    """The failures of the addresses that failed last.

    Each address has the instant at which its failures will be forgotten (GCRA): a failure moves it by `EVERY_NS`. It is
    never further away than that of a full burst, so a clock that is set back locks nobody out for longer.
    """

    def __init__(self) -> None:
        self._forgotten_ns: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._forgotten_ns)

    def wait_ns(self, address: str, now_ns: int) -> int:
        """Returns how long this address has to wait until it may fail again; 0 if it may now, or is unknown ("")."""
        if not address:
            return 0
        until_ns = min(self._forgotten_ns.get(place_of(address), 0), now_ns + _FULL_NS)
        return max(0, until_ns - now_ns - _FULL_NS + EVERY_NS)

    def note(self, address: str, now_ns: int) -> None:
        """Counts a failure of this address. The address that failed longest ago is forgotten if the table is full."""
        if not address:
            return
        place = place_of(address)
        until_ns = max(self._forgotten_ns.pop(place, 0), now_ns)
        if len(self._forgotten_ns) >= MOST_ADDRESSES:
            del self._forgotten_ns[next(iter(self._forgotten_ns))]
        self._forgotten_ns[place] = min(until_ns, now_ns + _FULL_NS - EVERY_NS) + EVERY_NS


def place_of(address: str) -> str:
    """Returns what counts as one address: of IPv6 the first 64 bits, since a single machine has all the others."""
    try:
        found = ip_address(address.removeprefix("::ffff:").partition("%")[0])
    except ValueError:
        return address[:64]
    return found.exploded[:19] if isinstance(found, IPv6Address) else str(found)
