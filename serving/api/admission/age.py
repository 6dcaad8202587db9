"""Computes how old a request is when this process reads it, from the stamp that HAProxy added when it read it.

On an overloaded machine, requests wait in sockets and event loops as long as in any queue, so a deadline counted from
the time of reading would be missed. Clocks of different machines differ, so only stamps made on this machine count
(HAProxy's configuration adds them). A stamp begins with a key made from the shared secret, so clients cannot forge one.
"""

from pathlib import Path

from serving.api.admission.secret import KEY_BYTES, key
from serving.core.clock import Calendar, Clock

HEADER = b"x-headway-began"
DIGITS = 16  # microseconds since 1970, until 2286
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_VALUE_BYTES = KEY_BYTES + len(b"-") + DIGITS
# The bytes before the value: in HTTP/1, and in a header block of HTTP/2. There it is a literal without indexing, so it
# can be removed without a change to the table of HPACK.
_LINE = b"\r\n" + HEADER + b": "
_FIELD = b"\0%c%b%c" % (len(HEADER), HEADER, _VALUE_BYTES)


def machine() -> bytes:
    """Returns the key in the stamps of this machine. It depends on the secret, and changes when the machine boots."""
    try:
        boot = _BOOT.read_text().strip()
    except OSError:
        boot = ""
    return key(f"age {boot}")


class Stamps:
    """Reads the stamps of one machine at the end of request heads, where HAProxy puts them.

    Stamps of other machines are removed too: heads are looked up in caches, and a stamp makes every head different."""

    def __init__(self, machine: bytes, calendar: Clock) -> None:
        self._calendar = calendar
        self._value = machine + b"-"
        self._line = _LINE + self._value
        self._field = _FIELD + self._value

    def split(self, head: bytes) -> tuple[bytes, int]:
        """Returns an HTTP/1 head without the stamp, and the age in ns; 0 without a stamp of this machine."""
        return self._split(head, self._line, _LINE)

    def split_block(self, block: bytes) -> tuple[bytes, int]:
        """Returns an HTTP/2 header block without the stamp, and the age in ns; 0 without a stamp of this machine."""
        return self._split(block, self._field, _FIELD)

    def _split(self, head: bytes, from_here: bytes, from_anywhere: bytes) -> tuple[bytes, int]:
        size = len(from_here) + DIGITS
        if head[-size:-DIGITS] == from_here:
            return head[:-size], self._age_ns(head[-DIGITS:])
        size = len(from_anywhere) + _VALUE_BYTES
        return (head[:-size] if head[-size:-_VALUE_BYTES] == from_anywhere else head), 0

    def age_ns(self, value: bytes) -> int:
        """Returns the age in ns from the value of the header; 0 if it is no stamp of this machine."""
        return self._age_ns(value[len(self._value) :]) if value.startswith(self._value) else 0

    def _age_ns(self, digits: bytes) -> int:
        return max(0, self._calendar.now_ns() - int(digits) * 1000) if digits.isdigit() else 0


HERE = Stamps(machine(), Calendar())
