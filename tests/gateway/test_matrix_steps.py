"""Tests that a server does the same work for every credential that is not valid, and that names which look alike on
the wire are not taken for each other."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as some

from serving.api.admission.gate import Action, Peer, http_peer
from serving.api.admission.local_gate import LocalGate
from serving.api.faults import CallFailed, Fault
from serving.api.grpc.call import Head
from serving.api.http.heads import Heads
from serving.gateway.gate import KeyGate
from serving.traffic.tenants import NAME as TENANT_NAME
from tests.gateway.stories import NOW_S, Door, bearer, creation, fixed, revocation

GOOD, REVOKED, EXPIRED, UNKNOWN = map(fixed, range(1, 5))
WRONG = [bearer(UNKNOWN), bearer(REVOKED), bearer(EXPIRED), bearer(GOOD)[:-1]]


def gate_of(*records: bytes, sees: Callable[[str, str], bool] = lambda tenant, model: model == tenant) -> KeyGate:
    door = Door(*records)
    door.look()
    return KeyGate(door.callers, local=LocalGate(admin_token="a token of some length"), sees=sees, calendar=door.clock)


def verdict(gate: KeyGate, peer: Peer, action: Action, model: str) -> Fault | str:
    """Returns the tenant of the caller, or the refusal."""
    try:
        return gate.check(peer, action, model).tenant
    except CallFailed as failed:
        return failed.fault


def steps(call: Callable[[], object]) -> list[str]:
    """Returns the names of all functions that the call calls, in order."""
    names: list[str] = []

    def note(frame: FrameType, event: str, function: Any) -> None:
        if event in ("call", "c_call"):
            names.append(frame.f_code.co_name if event == "call" else function.__name__)
            if names[-2:] == ["fullmatch", "fullmatch"]:
                names.pop()  # a text that is no key is replaced by one; that it is none is no secret

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return names


@pytest.mark.parametrize("action", [Action.PREDICT, Action.READ, Action.LOAD, Action.DEBUG])
def test_whatever_is_wrong_with_a_key_the_gate_takes_the_same_steps(action: Action) -> None:
    records = (creation(GOOD), creation(REVOKED), revocation(REVOKED.id), creation(EXPIRED, expires_s=NOW_S))
    gate = gate_of(*records)
    peers = [Peer({"authorization": shown}.get, "192.0.2.1") for shown in WRONG]  # type: ignore[arg-type]
    verdict(gate, peers[0], action, "")  # the first failure of an address is one entry more in a table
    asked = [(peer, model) for peer in peers for model in ("acme", "none", "")]
    taken = [steps(lambda one=one: verdict(gate, one[0], action, one[1])) for one in asked]  # type: ignore[misc]
    assert len({tuple(one) for one in taken}) == 1
    assert {"presented", "openssl_sha256", "compare_digest"} <= set(taken[0])


def test_a_foreign_model_and_none_take_the_same_steps() -> None:
    gate = gate_of(creation(GOOD, "acme"), sees=lambda tenant, model: False)
    peer = Peer({"authorization": bearer(GOOD)}.get)  # type: ignore[arg-type]
    verdict(gate, peer, Action.READ, "")
    taken = {tuple(steps(lambda name=name: verdict(gate, peer, Action.PREDICT, name))) for name in ("ours", "none")}  # type: ignore[misc]
    assert len(taken) == 1


NAMES = some.from_regex(TENANT_NAME, fullmatch=True)
LIKE = some.sampled_from(["{}", "{}:", ":{}", "{}/", "{}%20", "{}.", "{}-1", "{},{}", '"{}"', "*", "x{}"])
CHANGES = [str.swapcase, str.title, lambda text: f"{text} ", lambda text: text[:-1]]
QUIET = settings(max_examples=150, derandomize=True, database=None, deadline=None)


@QUIET
@given(one=NAMES, like=LIKE, claimed=some.integers(0, 2), twice=some.booleans())
def test_two_tenants_whose_names_collide_are_told_apart_alike_on_every_wire(
    one: str, like: str, claimed: int, twice: bool
) -> None:
    """A header that is repeated counts once, the first time. The three readers of headers agree with a plain one."""
    other = like.replace("{}", one)[:64]
    assume(other != one)
    gate = gate_of(creation(GOOD, one), creation(UNKNOWN, other))
    for key, tenant in ((GOOD, one), (UNKNOWN, other)):
        claim = ("", one, other)[claimed]
        headers = [("authorization", bearer(key))] + ([("x-tenant-id", claim)] if claim else [])
        again = headers + ([("x-tenant-id", other), ("authorization", bearer(GOOD))] if twice and claim else [])
        for model in (one, other):
            expected: int | str = 403 if claim not in ("", tenant) else 404 if model != tenant else tenant
            for peer in (over_asgi(again), over_grpc(again), over_fast_path(headers)):
                found = verdict(gate, peer, Action.PREDICT, model)
                assert (found.status if isinstance(found, Fault) else found) == expected


@QUIET
@given(
    name=NAMES, changed=some.sampled_from([str.swapcase, str.title, lambda text: text + " ", lambda text: text[:-1]])
)
def test_a_model_exists_only_under_its_very_name(name: str, changed: Callable[[str], str]) -> None:
    assume(changed(name) != name)
    gate = gate_of(creation(GOOD, "acme"), sees=lambda tenant, model: model == name)
    peer = over_asgi([("authorization", bearer(GOOD))])
    assert verdict(gate, peer, Action.PREDICT, name) == "acme"
    if changed(name):
        found = verdict(gate, peer, Action.PREDICT, changed(name))
        assert isinstance(found, Fault)
        assert found.status == 404


def over_asgi(headers: list[tuple[str, str]]) -> Peer:
    return http_peer({"headers": [(name.encode(), value.encode("latin-1")) for name, value in headers]})


def over_grpc(headers: list[tuple[str, str]]) -> Peer:
    return Peer(Head(tuple(headers)).metadata)


def over_fast_path(headers: list[tuple[str, str]]) -> Peer:
    lines = "".join(f"{name.title()}: {value}\r\n" for name, value in headers)
    raw = f"POST /infer HTTP/1.1\r\nHost: localhost\r\n{lines}Content-Length: 2"
    head = Heads(frozenset((b"/infer",)), b"", 100).read(raw.encode("latin-1"))
    assert head.is_plain
    return head.peer
