"""Quota counters in Redis or Valkey: one round trip per turn of a replica, whatever the number of tenants."""

from collections.abc import Sequence

from serving.store.base import PRESENT_NS, Renewal, StoreUnavailable
from serving.store.connecting import Client, disconnect
from serving.store.keys import Keys
from serving.store.scripting import Call, run_scripts
from serving.store.scripts import PRESENT, SETTLE
from serving.traffic.sharing import Ask, Grant


class RedisQuotaStore:
    """Counters of all tenants in one Redis. It keeps nothing that cannot be lost: without them, quotas begin anew."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def renew(self, replica: str, asks: Sequence[Ask]) -> Renewal:
        answers = await run_scripts(self._client, [self._present(replica, PRESENT_NS), *map(self._settle, asks)])
        return Renewal([_grant(answer) for answer in answers[1:]], _whole(answers[0]))

    async def leave(self, replica: str, asks: Sequence[Ask]) -> None:
        await run_scripts(self._client, [self._present(replica, 0), *map(self._settle, asks)])

    async def close(self) -> None:
        await disconnect(self._client)

    def _present(self, replica: str, for_ns: int) -> Call:
        return PRESENT, self._keys.present(), [replica, for_ns // 1_000_000]

    def _settle(self, ask: Ask) -> Call:
        per_day = -1 if ask.per_day is None else ask.per_day
        pace = [ask.pace.interval_ns / 1000, ask.pace.burst]
        return SETTLE, self._keys.quota(ask.tenant), [*pace, ask.want, ask.charged, ask.returned, ask.counted, per_day]


def _grant(answer: object) -> Grant:
    if not isinstance(answer, list) or len(answer) != 4:
        raise StoreUnavailable("garbage", f"an answer that is no grant: {str(answer)[:80]}")
    tokens, level, wait_us, left = map(_whole, answer)
    if tokens < 0 or wait_us < 0:
        raise StoreUnavailable("garbage", f"an answer that is no grant: {str(answer)[:80]}")
    return Grant(tokens, level, wait_us * 1000, None if left < 0 else left)


def _whole(answer: object) -> int:
    if not isinstance(answer, int):
        raise StoreUnavailable("garbage", f"an answer that is no number: {str(answer)[:80]}")
    return answer
