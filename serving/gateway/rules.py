"""The only authorisation: which scope an action needs, and that a model which a tenant may not see does not exist.

Pure. Which models a tenant may see is asked of a function that the settings give.
"""

from collections.abc import Callable

from serving.api.admission.gate import Action
from serving.api.faults import CallFailed, Fault, unknown_model
from serving.gateway.caller import Caller
from serving.gateway.keys import Scope

Sees = Callable[[str, str], bool]  # (tenant, model): whether the tenant may see the model


# The scope that an action needs; None: any valid credential will do.
NEEDS: dict[Action, Scope | None] = {
    Action.PREDICT: Scope.PREDICT,
    Action.READ: None,
    Action.LOAD: Scope.ADMIN,
    Action.UNLOAD: Scope.ADMIN,
    Action.TRACE: Scope.ADMIN,
    Action.LOG: Scope.ADMIN,
    Action.CACHE: Scope.ADMIN,
    Action.SHARED_MEMORY: Scope.ADMIN,  # it names any memory on the machine that the server may open
    Action.DEBUG: Scope.ADMIN,
    Action.METRICS: Scope.ADMIN,  # they hold the numbers of all tenants
    Action.PAGES: None,
    Action.AUDIT: Scope.ADMIN,
    Action.KEYS: Scope.ADMIN,
    Action.ROUTE: Scope.RELEASE,
    Action.FEATURES_READ: Scope.PREDICT,
    Action.FEATURES_WRITE: Scope.FEATURES_WRITE,
    Action.RELEASE: Scope.RELEASE,
    Action.APPROVE: Scope.REGISTRY_APPROVE,
    Action.FEEDBACK: Scope.FEEDBACK,
}


def sees_all(tenant: str, model: str) -> bool:
    """Returns True: the `Sees` of settings that keep no model from any tenant."""
    return True


def may(caller: Caller, action: Action, model: str = "", version: str = "", *, sees: Sees = sees_all) -> None:
    """Raises CallFailed if this caller may not do this: 404 for a model that it may not see, 403 for want of a scope.

    model, version: as the client names them; "" for an action on no model. The 404 is that of a model that is not
    there, and comes first: the scope is not asked for then, so that 403 does not tell that the model exists.
    """
    if model and not can_see(caller, action, model, sees):
        raise CallFailed(unknown_model(model, version))
    needed = NEEDS[action]
    if needed is not None and needed not in caller.scopes:
        raise CallFailed(Fault(403, f"this credential may not do that: it lacks the scope `{needed}`"))


def can_see(caller: Caller, action: Action, model: str, sees: Sees) -> bool:
    """Returns whether the model exists for this caller. For `admin` all do, except that it cannot predict with them."""
    return sees(caller.tenant, model) or (Scope.ADMIN in caller.scopes and action is not Action.PREDICT)


def can_see_tenants(caller: Caller) -> bool:
    """Returns whether this caller is shown the numbers of all tenants, not only those of its own."""
    return Scope.ADMIN in caller.scopes
