"""Permissions of callers to inspect or change the server: over both wires, with and without a load balancer."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import tritonclient.grpc as over_grpc
from tritonclient.utils import InferenceServerException

from models.reference import linear_spec
from serving.api.admission.gate import Action, Peer
from serving.api.admission.local_gate import CROSS_SITE, ELSEWHERE, STRANGE_HOST, LocalGate
from serving.api.admission.secret import key, known
from serving.api.faults import CallFailed
from tests.house import House, house

TOKEN = "a token of some length"
KEY = key("peer")
BEHIND = {"peer_header": "x-headway-peer", "peer_key": KEY}


def why_not(gate: LocalGate, address: str = "", **headers: str) -> str:
    """Returns the reason of a refusal, "" if the caller is allowed. headers: by name, with _ for -."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        gate.check(Peer(lambda name: given.get(name, ""), address), Action.LOAD)
    except CallFailed as failed:
        return failed.fault.text if (failed.fault.status, failed.fault.grpc_code) == (403, 7) else "another fault"
    return ""


def peer_value(address: str) -> str:
    return f"{KEY.decode()}-{address}"


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1"])
def test_a_caller_on_the_machine_itself_may(address: str) -> None:
    assert why_not(LocalGate(), address) == ""
    assert why_not(LocalGate(**BEHIND), x_headway_peer=peer_value(address)) == ""


@pytest.mark.parametrize("address", ["10.0.0.7", "", "localhost", "::2", "127.0.0.1.evil.example"])
def test_a_caller_from_elsewhere_may_not(address: str) -> None:
    assert why_not(LocalGate(), address) == ELSEWHERE
    assert why_not(LocalGate(**BEHIND), x_headway_peer=peer_value(address)) == ELSEWHERE


@pytest.mark.parametrize(
    "forged",
    ["127.0.0.1", "-127.0.0.1", "0123456789abcdef-127.0.0.1", KEY.decode() + "127.0.0.1", KEY.decode().upper()],
)
def test_what_a_client_says_of_its_own_address_counts_for_nothing_without_the_key(forged: str) -> None:
    assert why_not(LocalGate(**BEHIND), "127.0.0.1", x_headway_peer=forged) == ELSEWHERE
    assert why_not(LocalGate(**BEHIND), "127.0.0.1") == ELSEWHERE, "behind a load balancer its silence is no"
    assert why_not(LocalGate(), "10.0.0.7", x_headway_peer=peer_value("127.0.0.1")) == ELSEWHERE, (
        "there is none to believe"
    )


@pytest.mark.parametrize("host", ["", "localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "10.0.0.7:8000"])
def test_a_host_that_is_an_address_or_localhost_is_no_sign_of_a_web_page(host: str) -> None:
    assert why_not(LocalGate(), "127.0.0.1", host=host) == ""


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example"]
)
def test_a_name_that_was_resolved_to_this_machine_is_refused(host: str) -> None:
    assert why_not(LocalGate(), "127.0.0.1", host=host) == STRANGE_HOST
    same_origin = {"origin": f"http://{host}", "sec_fetch_site": "same-origin"}
    assert why_not(LocalGate(), "127.0.0.1", host=host, **same_origin) == STRANGE_HOST


@pytest.mark.parametrize(
    "sent",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:3000"},
        {"origin": "http://localhost:8000.evil.example"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
def test_a_page_of_another_site_is_refused(sent: dict[str, str]) -> None:
    assert why_not(LocalGate(), "127.0.0.1", host="localhost:8000", **sent) == CROSS_SITE


def test_a_page_of_the_server_itself_may() -> None:
    for origin in ({}, {"origin": "http://localhost:8000"}):
        for site in ("same-origin", "none", ""):
            assert why_not(LocalGate(), "127.0.0.1", host="localhost:8000", sec_fetch_site=site, **origin) == ""


def test_the_admin_token_opens_from_everywhere_and_nothing_like_it_does() -> None:
    gate = LocalGate(admin_token=TOKEN)
    assert why_not(gate, "10.0.0.7", authorization=f"Bearer {TOKEN}", host="models.example") == ""
    for wrong in (TOKEN, f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", "Bearer ", "", "Bearer \u00e9", "Bearer \ud800"):
        assert why_not(gate, "10.0.0.7", authorization=wrong) == ELSEWHERE
    assert why_not(LocalGate(), "10.0.0.7", authorization="Bearer ") == ELSEWHERE, "no token is no empty one"


def test_keys_come_from_the_start_s_secret_or_else_from_rays_token(tmp_path: Any) -> None:
    path = tmp_path / "token"
    path.write_text("of the file\n")
    by_file = {"RAY_AUTH_TOKEN_PATH": str(path)}
    assert known(by_file) == b"of the file"
    assert known(by_file | {"RAY_AUTH_TOKEN": "rays"}) == b"rays"
    assert known(by_file | {"RAY_AUTH_TOKEN": "rays", "HEADWAY_SECRET": "ours"}) == b"ours"
    assert known({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "absent")}) == b""
    assert len({key("peer"), key("age"), key("age 1")}) == 3


class Switches:
    """Records the changes of settings."""

    def __init__(self) -> None:
        self.changed: list[Any] = []

    async def log(self, changes: Any) -> dict[str, Any]:
        self.changed += [changes] if changes else []
        return {"log_info": True}

    async def trace(self, changes: Any, model: str = "") -> dict[str, Any]:
        self.changed += [changes] if changes else []
        return {"trace_level": ["OFF"]}


class Control:
    """Records which models are loaded and unloaded."""

    def __init__(self) -> None:
        self.changed: list[str] = []

    async def load(self, name: str) -> None:
        self.changed.append(name)

    async def unload(self, name: str) -> None:
        self.changed.append(name)


switches, control = Switches(), Control()


@pytest.fixture(scope="module")
def served() -> Iterator[House]:
    with house(linear_spec(), switches=switches, control=control, gate=LocalGate(**BEHIND)) as running:
        yield running


CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("/v2/logging", {"log_info": False}),
    ("/v2/trace/setting", {"trace_rate": "1"}),
    ("/v2/models/linear/trace/setting", {"trace_rate": "1"}),
    ("/v2/repository/models/linear/load", {}),
    ("/v2/repository/models/linear/unload", {}),
]


@pytest.mark.parametrize(("path", "change"), CHANGES)
def test_every_change_over_http_passes_the_gate(served: House, path: str, change: dict[str, Any]) -> None:
    before = len(switches.changed) + len(control.changed)
    url = f"http://{served.http}{path}"
    local = {"x-headway-peer": peer_value("127.0.0.1")}
    for headers in ({}, {"x-headway-peer": "127.0.0.1"}, local | {"origin": "http://evil.example"}):
        assert httpx.post(url, json=change, headers=headers).status_code == 403
    assert len(switches.changed) + len(control.changed) == before
    assert httpx.post(url, json=change, headers=local).status_code == 200
    assert len(switches.changed) + len(control.changed) == before + 1


def test_what_is_only_read_needs_no_gate(served: House) -> None:
    for path in ("/v2/logging", "/v2/trace/setting", "/v2/models/linear/trace/setting"):
        assert httpx.get(f"http://{served.http}{path}").status_code == 200
        assert httpx.post(f"http://{served.http}{path}", json={}).status_code == 200
    with over_grpc.InferenceServerClient(served.grpc) as client:
        client.get_log_settings()
        client.get_trace_settings()


def test_every_change_over_grpc_passes_the_gate(served: House) -> None:
    def calls(client: Any, headers: dict[str, str]) -> Iterator[Any]:
        yield lambda: client.update_log_settings({"log_info": False}, headers=headers)
        yield lambda: client.update_trace_settings(settings={"trace_rate": "1"}, headers=headers)
        yield lambda: client.load_model("linear", headers=headers)
        yield lambda: client.unload_model("linear", headers=headers)

    with over_grpc.InferenceServerClient(served.grpc) as client:
        for headers in ({}, {"x-headway-peer": "127.0.0.1"}):
            before = len(switches.changed) + len(control.changed)
            for call in calls(client, headers):
                with pytest.raises(
                    InferenceServerException, match="send this request from the server's machine"
                ) as refused:
                    call()
                assert refused.value.status() == "StatusCode.PERMISSION_DENIED"
            assert len(switches.changed) + len(control.changed) == before
        for call in calls(client, {"x-headway-peer": peer_value("127.0.0.1")}):
            call()
        assert len(switches.changed) + len(control.changed) == before + 4
