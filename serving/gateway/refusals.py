"""Keeps those who are refused from filling the audit: an entry at once for the first refusal of a kind, then one a
minute with a count. Pure: the instants are those of the entries."""

from dataclasses import replace

from serving.gateway.audit import Entry

WINDOW_S = 60
MOST_KINDS = 32  # in a window; refusals of further kinds are counted together
OTHERS = "others"  # in place of the address of these


class Refusals:
    """The refusals of one process that were counted and not written yet. May be used from several threads.

    Refusals are of one kind if all but their instants is equal: from where, by whom, of what, and how it was answered.
    """

    def __init__(self) -> None:
        self._counted: dict[Entry, tuple[float, int]] = {}  # since when, and how many more than were written

    def note(self, entry: Entry) -> Entry | None:
        """Counts a refusal. Returns the entry to write at once: the first of its kind in its window; otherwise None."""
        kind = replace(entry, at_s=0.0)
        if kind not in self._counted and len(self._counted) >= MOST_KINDS:
            entry = Entry(
                at_s=entry.at_s, tenant="", key_id="", action="any", object="", result=entry.result, address=OTHERS
            )
            kind = replace(entry, at_s=0.0)
        if (known := self._counted.get(kind)) is not None:
            since_s, more = known
            self._counted[kind] = since_s, more + 1
            return None
        self._counted[kind] = entry.at_s, 0
        return entry

    def due(self, now_s: float) -> list[Entry]:
        """Returns the entries to write of windows that are over. now_s: seconds since 1970."""
        entries = []
        for kind, (since_s, more) in list(self._counted.items()):
            if 0 <= now_s - since_s < WINDOW_S:
                continue
            if more:
                entries.append(replace(kind, at_s=now_s, result=f"{kind.result}, {more} more times"))
                self._counted[kind] = now_s, 0
            else:
                del self._counted[kind]
        return entries
