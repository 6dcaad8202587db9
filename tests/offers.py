"""Operations that tests let a server offer: loading of models, and settings of tracing and logging."""

import logging
from collections.abc import Mapping
from typing import Any

from serving.cluster.front.switches import LogSwitch, TraceSwitch


class Control:
    """A model control whose operations have no effect."""

    async def load(self, name: str) -> None: ...

    async def unload(self, name: str) -> None: ...


class Releases:
    """Releases that never begin."""

    async def told(self, model: str) -> dict[str, Any]:
        return {"model": model}

    async def start(self, model: str, body: Mapping[str, Any], by: str) -> dict[str, Any]:
        return {"model": model}

    async def change(self, model: str, what: str, body: Mapping[str, Any], by: str) -> dict[str, Any]:
        return {"model": model}

    async def consent(self, model: str, what: str, body: Mapping[str, Any], by: str) -> dict[str, Any]:
        return {"model": model}


class Switches:
    """The switches of one replica without an exporter of traces."""

    def __init__(self) -> None:
        self._log = LogSwitch(logging.getLogger("headway.tests"))
        self._trace = TraceSwitch(None)

    async def trace(self, changes: Mapping[str, Any], model: str = "") -> dict[str, Any]:
        return self._trace.change(changes)

    async def log(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        return self._log.change(changes)
