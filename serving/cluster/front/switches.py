"""Reads and changes trace and log settings while replicas run: Triton's settings, as far as they have an effect here.

Each replica has its own switches. The process that receives a change sends it to every running replica. A replica that
starts later begins with the server's settings.
"""

import logging
from collections.abc import Mapping
from typing import Any

from serving.api.faults import CallFailed, Fault, left_out
from serving.cluster.front.collector import Collector
from serving.protocol.errors import BadMessage
from serving.telemetry.trace import RequestTraces

Settings = dict[str, Any]
LOG = {
    "log_file": "",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}
# Triton's fields that have one value here. Clients read them all, and some write back what they have read.
LOG_FACTS = {name: LOG[name] for name in ("log_file", "log_format")}
TRACE_FACTS = {"trace_count": "-1", "log_frequency": "0", "trace_file": "", "trace_mode": "opentelemetry"}
UNTRACED = {"trace_level": ["OFF"], "trace_rate": "1000", **TRACE_FACTS}
_LEVELS = {"log_info": logging.INFO, "log_warning": logging.WARNING, "log_error": logging.ERROR}
CONTROL_IS_OFF = "changing trace and log settings is off on this server; the setting server.settings_control allows it"
_MOST = 2**31 - 1  # the largest rate or level over gRPC


class LogSwitch(logging.Filter):
    """A filter of a logger that drops the levels which are switched off."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__()
        self._logger = logger
        self._level = logger.level
        self.settings: Settings = dict(LOG)
        logger.addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        return all(self.settings[name] or record.levelno // 10 != level // 10 for name, level in _LEVELS.items())

    def change(self, changes: Mapping[str, Any]) -> Settings:
        self.settings |= checked_log(changes)
        self._logger.setLevel(logging.DEBUG if self.settings["log_verbose_level"] else self._level)
        return self.settings


class TraceSwitch:
    """The trace settings of a replica. traces: None if the server has no `trace_endpoint`."""

    def __init__(self, traces: RequestTraces | None) -> None:
        self._traces = traces
        share = traces.share if traces else 0.0
        self._configured = {
            "trace_level": ["TIMESTAMPS" if share else "OFF"],
            "trace_rate": str(round(1 / (share or 1))),
            **TRACE_FACTS,
        }
        self.settings: Settings = dict(self._configured)

    def change(self, changes: Mapping[str, Any]) -> Settings:
        wanted = checked_trace(changes)
        if self._traces is None:
            if any(value not in (None, UNTRACED[name]) for name, value in wanted.items()):
                raise BadMessage("nobody is sent traces; the setting server.trace_endpoint names who is")
            return UNTRACED
        if changes:
            self.settings |= {name: value or self._configured[name] for name, value in wanted.items()}
            is_on = self.settings["trace_level"] == ["TIMESTAMPS"]
            self._traces.share = 1 / int(self.settings["trace_rate"]) if is_on else 0.0
        return self.settings


class ClusterSwitches:
    """Implements `api.operations.Switches` for all replicas. may_change: False if settings may only be read."""

    def __init__(self, collector: Collector, *, may_change: bool = True) -> None:
        self._collector = collector
        self._may_change = may_change

    async def trace(self, changes: Mapping[str, Any], model: str = "") -> Settings:
        checked_trace(changes)
        return await self._answer("trace", changes, model)

    async def log(self, changes: Mapping[str, Any]) -> Settings:
        checked_log(changes)
        return await self._answer("log", changes, "")

    async def _answer(self, what: str, changes: Mapping[str, Any], model: str) -> Settings:
        if changes and not self._may_change:
            raise CallFailed(left_out(CONTROL_IS_OFF))
        of = self._collector.applications_of(model) if model else None
        answers = await self._collector.ask("switch", what, dict(changes), of=of)
        told: list[Settings | str] = [each for answer in answers.values() for each in answer.replies]
        silent = sum(answer.silent for answer in answers.values())
        for each in told:
            if isinstance(each, str):
                raise CallFailed(Fault(400, each))
        if silent or not told:
            raise CallFailed(Fault(503, f"{silent} replicas did not answer, {len(told)} did"))
        found = told[0]
        assert isinstance(found, dict)
        return found


def checked_log(changes: Mapping[str, Any]) -> Settings:
    """Returns the changes without None, which Triton's clients send for "unchanged". Raises BadMessage."""
    for name, value in changes.items():
        if name not in LOG:
            raise BadMessage(f"is no log setting; there are: {', '.join(LOG)}", path=name[:100])
        if name in LOG_FACTS:
            _check_fact(name, value, LOG_FACTS[name])
        elif value is None:
            continue
        elif name == "log_verbose_level":
            if type(value) is not int or not 0 <= value <= _MOST:
                raise BadMessage(f"must be a whole number from 0 to {_MOST}", path=name)
        elif type(value) is not bool:
            raise BadMessage("must be true or false", path=name)
    return {name: value for name, value in changes.items() if value is not None}


def checked_trace(changes: Mapping[str, Any]) -> Settings:
    """Returns the changes in the form in which they are reported; None resets a setting to the server's. Raises
    BadMessage."""
    checked: Settings = {}
    for name, value in changes.items():
        if name not in UNTRACED:
            raise BadMessage(f"is no trace setting; there are: {', '.join(UNTRACED)}", path=name[:100])
        values = value if isinstance(value, list) else [value]
        if value is None or not values:
            checked[name] = None
        elif name in TRACE_FACTS:
            _check_fact(name, values[0] if len(values) == 1 else value, TRACE_FACTS[name])
            checked[name] = TRACE_FACTS[name]
        elif name == "trace_level":
            if values not in (["OFF"], ["TIMESTAMPS"]):
                raise BadMessage("must be OFF or TIMESTAMPS", path=name)
            checked[name] = values
        else:
            rate = str(values[0])
            if len(values) > 1 or not rate.isascii() or not rate.isdigit() or not 1 <= int(rate[:20]) <= _MOST:
                raise BadMessage("must be a whole number: one request of so many is traced", path=name)
            checked[name] = rate
    return checked


def _check_fact(name: str, value: object, fact: object) -> None:
    """Raises BadMessage unless the value is the fixed one or None: clients may write back a value that they read."""
    if value is not None and (value != fact or type(value) is not type(fact)):
        raise BadMessage(f"is {str(fact)!r} on this server, and nothing else has an effect here", path=name)
