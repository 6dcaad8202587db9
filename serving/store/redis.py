"""Quota counters in Redis or Valkey: one round trip per turn of a replica, whatever the number of tenants."""

from collections.abc import Sequence
from typing import Any

from serving.store.base import PRESENT_NS, Renewal, StoreUnavailable
from serving.store.connecting import Client, disconnect
from serving.store.keys import Keys
from serving.store.scripts import PRESENT, SETTLE, digest
from serving.traffic.sharing import Ask, Grant

Call = tuple[str, str, list[object]]  # a script, its key and its arguments


class RedisQuotaStore:
    """Counters of all tenants in one Redis. It keeps nothing that cannot be lost: without them, quotas begin anew."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def renew(self, replica: str, asks: Sequence[Ask]) -> Renewal:
        answers = await self._run([self._present(replica, PRESENT_NS), *map(self._settle, asks)])
        return Renewal([_grant(answer) for answer in answers[1:]], _whole(answers[0]))

    async def leave(self, replica: str, asks: Sequence[Ask]) -> None:
        await self._run([self._present(replica, 0), *map(self._settle, asks)])

    async def close(self) -> None:
        await disconnect(self._client)

    def _present(self, replica: str, for_ns: int) -> Call:
        return PRESENT, self._keys.present(), [replica, for_ns // 1_000_000]

    def _settle(self, ask: Ask) -> Call:
        per_day = -1 if ask.per_day is None else ask.per_day
        pace = [ask.pace.interval_ns / 1000, ask.pace.burst]
        return SETTLE, self._keys.quota(ask.tenant), [*pace, ask.want, ask.charged, ask.returned, ask.counted, per_day]

    async def _run(self, calls: Sequence[Call]) -> list[Any]:
        """Runs scripts in one round trip, in a second one those that the server does not know yet."""
        answers = await self._send([("EVALSHA", digest(script), key, more) for script, key, more in calls])
        unknown = [index for index, answer in enumerate(answers) if _is_unknown(answer)]
        if unknown:
            whole = [("EVAL", *calls[index]) for index in unknown]
            for index, answer in zip(unknown, await self._send(whole), strict=True):
                answers[index] = answer
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    async def _send(self, commands: Sequence[tuple[str, str, str, list[object]]]) -> list[Any]:
        pipeline: Any = self._client.pipeline(transaction=False)
        for command, script, key, more in commands:
            pipeline.execute_command(command, script, 1, key, *more)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        if len(answers) != len(commands):
            raise StoreUnavailable("garbage", f"{len(answers)} answers to {len(commands)} commands")
        return answers


def _is_unknown(answer: object) -> bool:
    return isinstance(answer, Exception) and ("NOSCRIPT" in str(answer) or type(answer).__name__ == "NoScriptError")


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
