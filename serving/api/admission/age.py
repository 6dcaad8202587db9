"""The age of a request when this process reads it. HAProxy stamps each request with the instant of its arrival.

On an overloaded machine, requests wait in sockets and event loops as long as in the queue. A deadline counted from the
instant of reading would ignore that time. Clocks of different machines differ, so only stamps made on this machine
count (`cluster/haproxy/editing.py` has HAProxy add them). A stamp begins with a key made from the shared secret, so
stamps that clients send are ignored.
"""

from pathlib import Path

from serving.api.admission.secret import KEY_BYTES, key
from serving.core.clock import Calendar, Clock

HEADER = b"x-headway-began"
DIGITS = 16  # microseconds since 1970, until 2286
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_VALUE_BYTES = KEY_BYTES + len(b"-") + DIGITS
# The bytes before the value: in HTTP/1, and in a header block of HTTP/2. There the field is encoded without the
# dynamic table, so that it can be removed.
_LINE = b"\r\n" + HEADER + b": "
_FIELD = b"\0%c%b%c" % (len(HEADER), HEADER, _VALUE_BYTES)


def machine() -> bytes:
    """Returns the key of the stamps made on this machine since it booted. Only holders of the secret can make it."""
    try:
        boot = _BOOT.read_text().strip()
    except OSError:
        boot = ""
    return key(f"age {boot}")


class Stamps:
    """Reads the stamps of one machine and removes those of all.

    HAProxy adds a stamp at the end of the head. Heads that repeat are looked up in a cache instead of parsed; with a
    stamp no two heads would be equal, so stamps of other machines are removed too.
    """

    def __init__(self, machine: bytes, calendar: Clock) -> None:
        self._calendar = calendar
        self._value = machine + b"-"

    def split(self, head: bytes) -> tuple[bytes, int]:
        """Returns a head of HTTP/1 without its stamp, and the age in ns; 0 without a stamp of this machine."""
        return self._split(head, _LINE)

    def split_block(self, block: bytes) -> tuple[bytes, int]:
        """Returns a header block of HTTP/2 without its stamp, and the age in ns; 0 without a stamp of this machine."""
        return self._split(block, _FIELD)

    def _split(self, head: bytes, before_value: bytes) -> tuple[bytes, int]:
        start = len(head) - len(before_value) - _VALUE_BYTES
        if start < 0 or not head.startswith(before_value, start):
            return head, 0
        return head[:start], self.age_ns(head[-_VALUE_BYTES:])

    def age_ns(self, value: bytes) -> int:
        """Returns the age in ns that the value of the header states; 0 if it is not a stamp of this machine."""
        digits = value[len(self._value) :]
        if not value.startswith(self._value) or not digits.isdigit():
            return 0
        return max(0, self._calendar.now_ns() - int(digits) * 1000)


HERE = Stamps(machine(), Calendar())
