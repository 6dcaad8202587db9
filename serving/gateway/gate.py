"""The gate of a server whose callers need a credential: finds out who calls, applies the rules, and keeps the audit."""

import asyncio
from collections.abc import Callable

from serving.api.admission import gate
from serving.api.admission.gate import CHANGES, Action, Peer
from serving.api.admission.local_gate import LocalGate
from serving.api.faults import CallFailed
from serving.core.clock import Calendar, Clock
from serving.gateway.audit import Entry
from serving.gateway.caller import Caller
from serving.gateway.callers import Callers
from serving.gateway.keys import Scope
from serving.gateway.refusals import Refusals
from serving.gateway.rules import NEEDS, Sees, can_see, can_see_tenants, may, sees_all

TELL_EVERY_S = 5  # how often it is looked for refusals that are to be written
AUDITED = (401, 403, 429)  # refusals of these statuses; 429: too many failures from one address
NOBODY = Caller("", "", frozenset())
MOST_PASSES = 16  # kept with the headers of one peer, since a client chooses the names of models
# Whoever sends the secret of `admin_token_file`.
ADMIN_TOKEN = Caller("", "admin-token", frozenset({Scope.ADMIN, Scope.RELEASE}))


class KeyGate:
    """Implements `api.admission.gate.Gate`.

    local: knows the admin token, and the address of a peer behind a load balancer.
    sees: which models a tenant may see. note: takes an entry for the audit, without blocking, in any thread.
    claim: the header in which clients may repeat their tenant.
    """

    asks = True

    def __init__(
        self,
        callers: Callers,
        *,
        local: LocalGate,
        sees: Sees = sees_all,
        note: Callable[[Entry], None] | None = None,
        claim: str = "x-tenant-id",
        calendar: Clock | None = None,
    ) -> None:
        self._callers = callers
        self._local = local
        self._sees = sees
        self._note = note
        self._refusals = Refusals()
        self._claim = claim.lower()
        self._calendar: Clock = calendar or Calendar()

    def check(self, peer: Peer, action: Action, model: str = "", version: str = "", *, quietly: bool = False) -> Caller:
        passes, asked = peer.passes, (action, model)
        if passes is not None and (kept := passes.get(asked)) is not None:
            generation, expires_ns, caller = kept
            if generation == self._callers.generation and (expires_ns is None or self._calendar.now_ns() < expires_ns):
                return caller  # type: ignore[no-any-return]
        caller = self._checked(peer, action, model, version, quietly=quietly)
        if passes is not None and action not in CHANGES and len(passes) < MOST_PASSES:
            passes[asked] = self._callers.generation, caller.expires_ns, caller
        return caller

    def _checked(self, peer: Peer, action: Action, model: str, version: str, *, quietly: bool) -> Caller:
        if self._local.is_admin(peer):
            caller = ADMIN_TOKEN
        else:
            header = peer.header
            try:
                caller = self._callers.of(
                    header("authorization"), header(self._claim), address=lambda: self._local.address(peer)
                )
            except CallFailed as failed:
                if not quietly:
                    self._keep_refusal(NOBODY, peer, action, model, failed.fault.status)
                raise
        try:
            may(caller, action, model, version, sees=self._sees)
        except CallFailed as failed:
            if not quietly:
                self._keep_refusal(caller, peer, action, model, failed.fault.status)
            raise
        if action in CHANGES and self._note is not None:
            self._note(self._entry(caller, peer, action, model, "allowed"))
        return caller

    def allows(self, peer: Peer, action: Action) -> bool:
        caller = self._checked(peer, Action.READ, "", "", quietly=True)
        return NEEDS[action] is None or NEEDS[action] in caller.scopes

    async def keep_telling(self) -> None:
        """Writes the counts of refusals into the audit until it is cancelled. The owner of the gate runs this as a
        task."""
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            self.tell()

    def tell(self) -> None:
        """Writes the refusals that were only counted, if their minute is over."""
        for entry in self._refusals.due(self._calendar.now_ns() / 1e9):
            if self._note is not None:
                self._note(entry)

    def sees(self, caller: gate.Caller, model: str) -> bool:
        return isinstance(caller, Caller) and can_see(caller, Action.READ, model, self._sees)

    def sees_tenants(self, caller: gate.Caller) -> bool:
        return isinstance(caller, Caller) and can_see_tenants(caller)

    def _keep_refusal(self, caller: Caller, peer: Peer, action: Action, model: str, status: int) -> None:
        """Keeps what tells of missing rights: not that a model is not there, unless somebody wanted to change it."""
        is_change = action in CHANGES
        if self._note is None or not (is_change or status in AUDITED):
            return
        entry = self._entry(caller, peer, action, model if is_change else "", f"refused: {status}")
        if (first := self._refusals.note(entry)) is not None:
            self._note(first)

    def _entry(self, caller: Caller, peer: Peer, action: Action, object: str, result: str) -> Entry:
        return Entry(
            at_s=self._calendar.now_ns() / 1e9,
            tenant=caller.tenant,
            key_id=caller.key_id,
            action=action,
            object=object,
            result=result,
            address=self._local.address(peer) or "unknown",
        )
