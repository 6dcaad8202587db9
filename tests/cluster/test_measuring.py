"""Tests that replicas that start together measure in turn, as far as the machine's cores require it."""

import asyncio
from pathlib import Path

import pytest

from serving.cluster.replica import measuring
from serving.cluster.replica.measuring import turn


class Crowd:
    """Tasks that wait for the lock, and the most that held it at once."""

    def __init__(self, folder: Path, cores: float) -> None:
        self._folder, self._cores = folder, cores
        self.now = self.most = self.done = 0

    async def one(self) -> None:
        async with turn(self._folder, self._cores):
            self.now += 1
            self.most = max(self.most, self.now)
            for _ in range(10):
                await asyncio.sleep(0)
            self.now -= 1
            self.done += 1


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "POLL_S", 0)


@pytest.mark.parametrize(("cores", "at_once"), [(0.5, 1), (2, 1), (3.9, 1), (4, 2), (6, 3)])
def test_so_many_measure_at_once_as_have_two_cores_each(tmp_path: Path, cores: float, at_once: int) -> None:
    async def story() -> Crowd:
        crowd = Crowd(tmp_path / "not there yet", cores)
        async with asyncio.timeout(10):
            await asyncio.gather(*(crowd.one() for _ in range(6)))
        return crowd

    crowd = asyncio.run(story())
    assert (crowd.done, crowd.most) == (6, at_once)


def test_a_measurement_that_fails_or_never_ends_blocks_no_replica_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> int:
        with pytest.raises(RuntimeError, match="no model"):
            async with turn(tmp_path, 2):
                raise RuntimeError("no model")
        crowd = Crowd(tmp_path, 2)
        async with turn(tmp_path, 2):
            monkeypatch.setattr(measuring, "PATIENCE_S", 0.0)
            await crowd.one()
        return crowd.done

    assert asyncio.run(story()) == 1
