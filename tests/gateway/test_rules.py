"""Tests who may do what: scopes by action, and models that do not exist for a tenant."""

import pytest

from serving.api.admission.gate import Action
from serving.api.faults import CallFailed, Fault, unknown_model
from serving.gateway.caller import Caller
from serving.gateway.keys import Scope
from serving.gateway.rules import NEEDS, may


def caller(*scopes: Scope, tenant: str = "acme") -> Caller:
    return Caller(tenant, "id", frozenset(scopes))


def verdict(who: Caller, action: Action, model: str = "", version: str = "") -> Fault | None:
    try:
        may(who, action, model, version, sees=lambda tenant, model: model == f"{tenant}s-own")
    except CallFailed as error:
        return error.fault
    return None


def test_every_action_has_a_rule() -> None:
    assert NEEDS.keys() == set(Action)


@pytest.mark.parametrize("action", Action)
def test_an_action_needs_its_scope_and_no_other_does(action: Action) -> None:
    allowed = {scope for scope in Scope if verdict(caller(scope), action) is None}
    needed = NEEDS[action]
    assert allowed == (set(Scope) if needed is None else {needed})
    refused = verdict(caller(), action)
    assert (refused is None) == (needed is None)
    if refused is not None:
        assert (refused.status, f"`{needed}`" in refused.text) == (403, True)


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("scopes", [(), (Scope.PREDICT,), (Scope.RELEASE, Scope.FEEDBACK)])
def test_a_foreign_model_is_answered_exactly_as_one_that_is_not_there(
    action: Action, scopes: tuple[Scope, ...]
) -> None:
    foreign = verdict(caller(*scopes), action, "globexs-own", "3")
    assert foreign == unknown_model("globexs-own", "3")


def test_a_foreign_model_is_hidden_before_a_scope_is_asked_for() -> None:
    nothing = caller()
    assert [fault and fault.status for fault in (
        verdict(nothing, Action.PREDICT, "acmes-own"), verdict(nothing, Action.PREDICT, "globexs-own")
    )] == [403, 404]  # fmt: skip


def test_an_administrator_operates_all_models_and_predicts_with_those_of_its_tenant() -> None:
    admin = caller(Scope.ADMIN, Scope.PREDICT)
    assert verdict(admin, Action.UNLOAD, "globexs-own") is None
    assert verdict(admin, Action.READ, "globexs-own") is None
    assert verdict(admin, Action.PREDICT, "globexs-own") == unknown_model("globexs-own")
    assert verdict(admin, Action.PREDICT, "acmes-own") is None
