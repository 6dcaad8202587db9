"""The records of keys in an object store: `keys/log/000000000001.json` and so on. `serving/store/log.py` reads and adds
them; what a record means is in `keys.py`."""

from serving.gateway.keys import Keys, closed_by, folded
from serving.store.log import Log
from serving.store.objects import ObjectStore

FOLDER = "keys/log"


class KeyLog(Log[Keys]):
    """The keys in this store, as far as their records were read."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store, FOLDER, {}, folded, of="a key", beside=closed_by)

    def __repr__(self) -> str:
        return f"<KeyLog {len(self.keys)} keys of {self.last} records, {len(self.unreadable)} unreadable>"

    @property
    def keys(self) -> Keys:
        """All keys, by id."""
        return self.state


def path_of(number: int) -> str:
    return f"{FOLDER}/{number:012}.json"
