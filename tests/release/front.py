"""The releases of a front on fakes, for tests of its routes, its page and its commands."""

from collections.abc import Mapping
from typing import Any

from serving.cluster.front.releases import FrontReleases, OneModel
from tests.release.stories import Story


class Front:
    """A front with the model of a story. routed: the models whose traffic was moved, in their order."""

    def __init__(self, story: Story, *names: str) -> None:
        self.story = story
        self.routed: list[str] = []
        self.models = {name: self._one(name) for name in names or ("ranker",)}
        self.releases = FrontReleases([*self.models], self.models.__getitem__, calendar=story.clock, routed=self._hear)

    def _one(self, name: str) -> OneModel:
        log = self.story.log(name)
        return OneModel(log, self.story.made(log))

    async def _hear(self, model: str) -> None:
        self.routed.append(model)

    async def start(self, body: Mapping[str, Any], by: str = "ann", model: str = "ranker") -> dict[str, Any]:
        return await self.releases.start(model, body, by)
