"""How long a request was under way before this process read it: HAProxy stamps each with the instant it took it.

On a machine that has more to do than it can, requests wait in sockets and event loops as long as in any queue; a
deadline counted from when they are read would be kept only on paper. Clocks of different machines differ, so a stamp
counts only where it comes from this one (`cluster/haproxy/editing.py` writes it). It begins with a key made of the shared
secret, so a client's own counts for nothing, by whichever way it came.
"""

from pathlib import Path

from serving.api.admission.secret import KEY_BYTES, key
from serving.core.clock import Calendar, Clock

HEADER = b"x-headway-began"
DIGITS = 16  # microseconds since 1970, until 2286
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_VALUE_BYTES = KEY_BYTES + len(b"-") + DIGITS
# Up to the value: in HTTP/1, and in a header block of HTTP/2, where it touches no table and can be taken off.
_LINE = b"\r\n" + HEADER + b": "
_FIELD = b"\0%c%b%c" % (len(HEADER), HEADER, _VALUE_BYTES)


def machine() -> bytes:
    """The key of the stamps of this machine, since its start: only whoever knows the secret can make one."""
    try:
        boot = _BOOT.read_text().strip()
    except OSError:
        boot = ""
    return key(f"age {boot}")


class Stamps:
    """Reads those of one machine. Their place is the end of the head, where HAProxy puts them. Other machines' are
    taken off too: with them no head would be like another, and heads that repeat are what makes requests cheap."""

    def __init__(self, machine: bytes, calendar: Clock) -> None:
        self._calendar = calendar
        self._value = machine + b"-"
        self._line = _LINE + self._value
        self._field = _FIELD + self._value

    def split(self, head: bytes) -> tuple[bytes, int]:
        """A head of HTTP/1 without the stamp, and the age in nanoseconds; 0 without a stamp from here."""
        return self._split(head, self._line, _LINE)

    def split_block(self, block: bytes) -> tuple[bytes, int]:
        """The same of a header block of HTTP/2."""
        return self._split(block, self._field, _FIELD)

    def _split(self, head: bytes, from_here: bytes, from_anywhere: bytes) -> tuple[bytes, int]:
        size = len(from_here) + DIGITS
        if head[-size:-DIGITS] == from_here:
            return head[:-size], self._age_ns(head[-DIGITS:])
        size = len(from_anywhere) + _VALUE_BYTES
        return (head[:-size] if head[-size:-_VALUE_BYTES] == from_anywhere else head), 0

    def age_ns(self, value: bytes) -> int:
        """Of a header's value."""
        return self._age_ns(value[len(self._value) :]) if value.startswith(self._value) else 0

    def _age_ns(self, digits: bytes) -> int:
        return max(0, self._calendar.now_ns() - int(digits) * 1000) if digits.isdigit() else 0


HERE = Stamps(machine(), Calendar())
