"""Log settings, trace settings and unloading in one process, as Triton's clients use them over both wires."""

import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
from google.protobuf.json_format import MessageToDict

from models.reference import noop_spec
from serving.cluster.front.switches import LogSwitch, TraceSwitch
from tests.api.triton_clients import connect, failure
from tests.house import House, house

LOG = {
    "log_file": "", "log_info": True, "log_warning": True, "log_error": True, "log_verbose_level": 0,
    "log_format": "default",
}  # fmt: skip
TRACE = {
    "trace_level": ["OFF"], "trace_rate": "1000", "trace_count": "-1", "log_frequency": "0", "trace_file": "",
    "trace_mode": "opentelemetry",
}  # fmt: skip


class Traces:
    """A stand-in for an exporter of traces."""

    share = 0.25


class Switches:
    def __init__(self, traces: Any = None) -> None:
        self._log = LogSwitch(logging.getLogger("headway.tests.settings"))
        self._trace = TraceSwitch(traces)

    async def trace(self, changes: Mapping[str, Any], model: str = "") -> dict[str, Any]:
        return self._trace.change(changes)

    async def log(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        return self._log.change(changes)


class Control:
    def __init__(self) -> None:
        self.unloaded: list[str] = []

    async def load(self, name: str) -> None: ...

    async def unload(self, name: str) -> None:
        self.unloaded.append(name)


CONTROL = Control()


@pytest.fixture(scope="module")
def served() -> Iterator[House]:
    with house(noop_spec(), switches=Switches(), control=CONTROL) as running:
        yield running


def plain(answer: Any) -> dict[str, Any]:
    """Returns settings in the form of HTTP's JSON, whichever wire answered them."""
    if isinstance(answer, dict):
        return answer
    settings = MessageToDict(answer, preserving_proto_field_name=True)["settings"]
    if "log_info" in settings:
        return {name: next(iter(value.values())) for name, value in settings.items()}
    values = {name: value["value"] for name, value in settings.items()}
    return {name: value if name == "trace_level" else value[0] for name, value in values.items()}


def test_all_fields_of_triton_are_answered(triton) -> None:
    assert plain(triton.get_log_settings()) == LOG
    for model in ("", "noop"):
        assert plain(triton.get_trace_settings(model)) == TRACE


def test_what_is_so_already_may_be_set(triton) -> None:
    assert plain(triton.update_log_settings(LOG)) == LOG
    assert plain(triton.update_log_settings(dict.fromkeys(LOG))) == LOG
    for model in ("", "noop"):
        assert plain(triton.update_trace_settings(model, TRACE)) == TRACE
        assert plain(triton.update_trace_settings(model, dict.fromkeys(TRACE))) == TRACE


@pytest.mark.parametrize(("name", "value"), [("log_file", "x.log"), ("log_format", "ISO8601"), ("log_nothing", True)])
def test_a_log_setting_without_effect_is_refused_with_its_name(triton, name: str, value: object) -> None:
    assert f"{name}: is " in failure(triton.update_log_settings, {name: value})
    assert plain(triton.get_log_settings()) == LOG


@pytest.mark.parametrize(
    ("name", "value"), [("trace_file", "x"), ("trace_count", "5"), ("trace_mode", "triton"), ("trace_nothing", "1")]
)
def test_a_trace_setting_without_effect_is_refused_with_its_name(triton, name: str, value: str) -> None:
    assert f"{name}: is " in failure(triton.update_trace_settings, "", {name: value})


@pytest.mark.parametrize("changes", [{"trace_level": ["TIMESTAMPS"]}, {"trace_rate": "7"}])
def test_tracing_cannot_be_switched_on_without_an_exporter(triton, changes: dict[str, Any]) -> None:
    assert "server.trace_endpoint" in failure(triton.update_trace_settings, "", changes)


def test_where_traces_are_sent_rate_and_level_change_and_go_back(wire) -> None:
    with house(noop_spec(), switches=Switches(Traces())) as running, connect(running, wire) as client:
        first = TRACE | {"trace_level": ["TIMESTAMPS"], "trace_rate": "4"}
        assert plain(client.get_trace_settings()) == first
        assert plain(client.update_trace_settings("", first)) == first
        assert plain(client.update_trace_settings("", {"trace_rate": "9"})) == first | {"trace_rate": "9"}
        assert plain(client.update_trace_settings("", {"trace_level": "OFF", "trace_rate": None})) == first | {
            "trace_level": ["OFF"]
        }


def test_a_model_that_is_not_there_is_unloaded_already(triton) -> None:
    triton.unload_model("nobody")
    triton.unload_model("nobody", unload_dependents=True)
    assert CONTROL.unloaded == []
    triton.unload_model("noop")
    assert CONTROL.unloaded.pop() == "noop"


def test_settings_that_are_no_object_are_refused(served: House) -> None:
    for path in ("logging", "trace/setting"):
        refused = httpx.post(f"http://{served.http}/v2/{path}", content=json.dumps([1]))
        assert (refused.status_code, refused.json()["error"]) == (400, "not a JSON object")
