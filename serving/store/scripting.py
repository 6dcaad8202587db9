"""Runs scripts in Redis: any number of calls in one round trip, each on one key, as a Redis Cluster needs it."""

from collections.abc import Sequence
from typing import Any

from serving.store.base import StoreUnavailable
from serving.store.connecting import Client
from serving.store.scripts import digest

Call = tuple[str, str, list[object]]  # a script, its key and its arguments


async def run_scripts(client: Client, calls: Sequence[Call]) -> list[Any]:
    """Returns the answers of the calls. Scripts that the server does not know yet are sent in a second round trip.

    Raises the first error among the answers, and StoreUnavailable if their number is wrong."""
    answers = await _send(client, [("EVALSHA", digest(script), key, more) for script, key, more in calls])
    unknown = [index for index, answer in enumerate(answers) if _is_unknown(answer)]
    if unknown:
        whole = [("EVAL", *calls[index]) for index in unknown]
        for index, answer in zip(unknown, await _send(client, whole), strict=True):
            answers[index] = answer
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


async def _send(client: Client, commands: Sequence[tuple[str, str, str, list[object]]]) -> list[Any]:
    pipeline: Any = client.pipeline(transaction=False)
    for command, script, key, more in commands:
        pipeline.execute_command(command, script, 1, key, *more)
    answers: list[Any] = await pipeline.execute(raise_on_error=False)
    if len(answers) != len(commands):
        raise StoreUnavailable("garbage", f"{len(answers)} answers to {len(commands)} commands")
    return answers


def _is_unknown(answer: object) -> bool:
    return isinstance(answer, Exception) and ("NOSCRIPT" in str(answer) or type(answer).__name__ == "NoScriptError")
