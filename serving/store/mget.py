"""Reads many keys of Redis in one round trip, for less CPU than the client's own `mget`."""

from collections.abc import Sequence
from typing import Any

from serving.store.base import StoreUnavailable
from serving.store.connecting import Client, is_cluster


async def mget(client: Client, keys: Sequence[str]) -> Sequence[bytes | None]:
    """Returns the values in the order of their keys, None for each that is not there. Keys are ASCII.

    Ended in the middle, it closes its connection, so that its late answer is nobody's. Raises StoreUnavailable for what
    is no answer to these keys, and the errors of the client."""
    if not keys:
        return []
    told: Any = client
    if is_cluster(client):
        values = await told.mget_nonatomic(keys)  # on whatever nodes they are
    else:
        # What `client.mget` does, without what costs it twice the time of everything else.
        pool = told.connection_pool
        connection = await pool.get_connection()
        try:
            await connection.send_packed_command(packed(keys), check_health=False)
            values = await connection.read_response()
        finally:
            await pool.release(connection)
    if not isinstance(values, list) or len(values) != len(keys):
        raise StoreUnavailable("garbage", f"an answer that is no list of {len(keys)} values: {str(values)[:80]}")
    if any(value is not None and not isinstance(value, bytes) for value in values):
        raise StoreUnavailable("garbage", "an answer whose values are no bytes")
    return values


def packed(keys: Sequence[str]) -> bytes:
    """Returns the command that reads these keys, as it is sent."""
    parts = [f"*{len(keys) + 1}\r\n$4\r\nMGET\r\n", *[f"${len(key)}\r\n{key}\r\n" for key in keys]]
    return "".join(parts).encode("ascii")
