"""Collects from all replicas of two versions what a release is judged by."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from serving.cluster.front.collector import Replies
from serving.traffic.evidence import Reading
from serving.traffic.feedback import Desk, Report


class Ask(Protocol):
    """Calls a method on all replicas of applications, see `collector.Collector.ask`."""

    async def __call__(self, method: str, *arguments: Any, of: Sequence[str]) -> dict[str, Replies]: ...


class Collected(NamedTuple):
    """One collection: the arguments of `traffic.trial.Trial.observed`. silent: replicas that did not answer in time."""

    candidate: list[Reading]
    stable: list[Reading]
    values: tuple[list[float], list[float]]
    silent: int


class EvidenceSource:
    """Collects the evidence of one release. ask: `Collector.ask`."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._desk = Desk()

    async def collect(self, candidate: str, stable: str) -> Collected:
        """Asks the replicas of both applications at the same time; waits as long as the collector does."""
        asked = self._desk.asked()
        answers = await self._ask("evidence", asked, of=[candidate, stable])
        arms: list[list[Report]] = [answers[candidate].replies, answers[stable].replies]
        values = self._desk.joined(asked, arms)
        own, others = ([report.reading for report in reports] for reports in arms)
        silent = answers[candidate].silent + answers[stable].silent
        return Collected(own, others, (values[0], values[1]), silent)
