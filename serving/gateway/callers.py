"""Finds out who calls: from the credential of a request to its `Caller`, by what is known of keys and tokens.

All is in memory, so that a call costs microseconds and no store is asked while a request waits. `keep_current` looks
for changes. Whoever is refused learns nothing from it: a credential that is unknown, wrong, expired or revoked gets one
answer after the same steps. Knows no wire; what a caller may do is in `rules.py`.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from hmac import compare_digest
from secrets import token_bytes

from serving.api.faults import CallFailed, Fault, retry_after
from serving.api.recall import Recall
from serving.core.clock import Calendar, Clock
from serving.gateway.caller import Caller
from serving.gateway.failures import Failures
from serving.gateway.key_log import KeyLog
from serving.gateway.key_text import presented
from serving.gateway.keys import Key, Keys
from serving.gateway.tokens import BadToken, SignersUnknown, Tokens
from serving.store.objects import StoreUnreachable

__all__ = ["Caller", "Callers"]

logger = logging.getLogger(__name__)
EVERY_S = 2  # between two looks for changes; a revocation has to take effect within five seconds
_SECOND_NS = 1_000_000_000
_DOWN = "their store is not reachable"
_SOON_NS = EVERY_S * _SECOND_NS
UNAUTHENTICATED = Fault(
    401,
    "no valid credential: send the header `Authorization: Bearer <key>`; a key can be unknown, expired or revoked "
    "(`headway keys list`)",
    ((b"www-authenticate", b"Bearer"),),
)
OTHER_TENANT = Fault(403, "X-Tenant-ID names another tenant than the credential; leave it out")
NOT_NOW = Fault(
    503, "credentials cannot be checked now, since their store is not reachable; retry later",
    (retry_after(_SOON_NS),), _SOON_NS,
)  # fmt: skip
_Known = Mapping[str, tuple[bytes, Caller, bool]]  # by the id of a key: its digest, its caller, whether it is revoked


class _Invalid(Exception):
    """The credential is not valid."""


class Callers:
    """The callers of one process. log: the keys, None if none are taken. tokens: None if none are taken.

    generation: rises when a caller that was returned may no longer be right. Until then, the caller of an equal head
    need not be asked for again.
    """

    def __init__(self, log: KeyLog | None, tokens: Tokens | None = None, *, calendar: Clock | None = None) -> None:
        self._log = log
        self._tokens = tokens
        self._calendar: Clock = calendar or Calendar()
        self._known: _Known = {}
        # Stands for every key that is not there. No secret has this digest.
        self._nobody = (token_bytes(32), Caller("", "", frozenset()), True)
        self._failures = Failures()
        self._seen: Recall[Caller] = Recall(1024)  # in this generation, by the whole header
        self._failure = "they were not read yet" if log is not None else ""  # of the last reading of keys
        self._next_expiry_ns: int | None = None
        self._said: tuple[str, ...] = ()
        self.generation = 0

    def __repr__(self) -> str:
        return f"<Callers {len(self._known)} keys, generation {self.generation}, troubles {list(self.troubles())}>"

    def of(
        self,
        authorization: bytes | str,
        tenant_claimed: str = "",
        now_ns: int | None = None,
        address: Callable[[], str] = str,
    ) -> Caller:
        """Returns the caller with this credential. Raises CallFailed (401, 403, 429, 503).

        authorization, tenant_claimed: the values of the headers Authorization and X-Tenant-ID, empty if they were not
        sent. now_ns: nanoseconds since 1970; None: now. address: returns the other end's, asked after a failure only;
            failures of "" are not limited.
        """
        if now_ns is None:
            now_ns = self._calendar.now_ns()
        if not authorization:
            raise CallFailed(UNAUTHENTICATED)
        sent = authorization.encode("latin-1", "replace") if isinstance(authorization, str) else authorization
        caller = self._seen.get(sent)
        if caller is None or (caller.expires_ns is not None and now_ns >= caller.expires_ns):
            caller = self._found(sent, now_ns, address)
            self._seen.keep(sent, caller)
        if tenant_claimed and tenant_claimed != caller.tenant:
            raise CallFailed(OTHER_TENANT)
        return caller

    async def look(self, now_ns: int) -> None:
        """Reads what has changed in the store and at the provider, and raises the generation if need be."""
        has_changed = any(await asyncio.gather(self._look_for_keys(), self._look_for_signers(now_ns)))
        if self._next_expiry_ns is not None and now_ns >= self._next_expiry_ns:
            self._next_expiry_ns, has_changed = None, True  # known again when those that remain are asked for
        if has_changed:
            self._seen = Recall(1024)
            self.generation += 1
        self._tell()

    async def keep_current(self, every_s: float = EVERY_S) -> None:
        """Looks for changes until it is cancelled. The owner of the callers runs this as a task."""
        while True:
            try:
                await self.look(self._calendar.now_ns())
            except Exception:
                # Whatever it was: without the next look, no revocation would take effect again.
                logger.exception("changes of keys could not be looked for")
                self._failure = "an error that is in the log" if self._log is not None else ""
            await asyncio.sleep(every_s)

    def troubles(self) -> tuple[str, ...]:
        """Returns what is wrong with the sources of keys, one sentence each, for the log and for pages."""
        log, tokens = self._log, self._tokens
        unread = [f"keys: {one}" for one in (*log.unreadable, *log.foreign)] if log is not None else []
        stale = [f"keys: {self._failure}; those known go on working"] if self._failure else []
        return (*stale, *unread, *([f"tokens: {tokens.failure}"] if tokens is not None and tokens.failure else []))

    def _found(self, sent: bytes, now_ns: int, address: Callable[[], str]) -> Caller:
        """Returns the caller of a header Authorization that was not seen before. Raises CallFailed."""
        scheme, _, credential = sent.partition(b" ")
        credential = credential.strip()
        try:
            if scheme.lower() != b"bearer":
                raise _Invalid
            if self._tokens is not None and not credential.startswith(b"hw_"):
                caller = self._of_token(self._tokens, credential, now_ns, address)
            else:
                caller = self._of_key(credential, now_ns)
        except (_Invalid, BadToken):
            self._refuse(address, now_ns)
            raise CallFailed(UNAUTHENTICATED) from None
        except SignersUnknown:
            raise CallFailed(NOT_NOW) from None
        if caller.expires_ns is not None and (self._next_expiry_ns is None or caller.expires_ns < self._next_expiry_ns):
            self._next_expiry_ns = caller.expires_ns
        return caller

    def _of_key(self, credential: bytes, now_ns: int) -> Caller:
        id, digest = presented(credential)
        known, caller, is_revoked = self._known.get(id, self._nobody)
        is_same = compare_digest(known, digest)
        is_over = caller.expires_ns is not None and now_ns >= caller.expires_ns
        if is_same and not is_revoked and not is_over:
            return caller
        if id and not is_same and self._failure:
            raise CallFailed(NOT_NOW)  # it may be a key that is not known here yet
        raise _Invalid

    def _of_token(self, tokens: Tokens, token: bytes, now_ns: int, address: Callable[[], str]) -> Caller:
        caller = tokens.known(token, now_ns)
        if caller is None:
            self._refuse(address, now_ns, counts=False)  # to check a signature costs more than all else
            caller = tokens.read(token, now_ns)
        return caller

    def _refuse(self, address: Callable[[], str], now_ns: int, *, counts: bool = True) -> None:
        """Raises CallFailed (429) if this address has failed too often, and counts a failure otherwise."""
        asking = address()
        if wait_ns := self._failures.wait_ns(asking, now_ns):
            text = "too many requests without a valid credential from this address; retry later"
            raise CallFailed(Fault(429, text, (retry_after(wait_ns),), wait_ns))
        if counts:
            self._failures.note(asking, now_ns)

    async def _look_for_keys(self) -> bool:
        if self._log is None:
            return False
        try:
            has_changed = await self._log.read_new()
        except StoreUnreachable as error:
            if self._failure != _DOWN:
                logger.warning("keys: %s", error)
            self._failure = _DOWN  # not the error's text, which may tell times and so be new at every look
            return False
        self._failure = ""
        if has_changed:
            self._known = _known(self._log.keys)
        return has_changed

    async def _look_for_signers(self, now_ns: int) -> bool:
        return self._tokens is not None and self._tokens.is_due(now_ns) and await self._tokens.refresh(now_ns)

    def _tell(self) -> None:
        """Logs what has become wrong, once."""
        troubles = self.troubles()
        for trouble in troubles:
            if trouble not in self._said:
                logger.error("%s", trouble)
        self._said = troubles


def _known(keys: Keys) -> _Known:
    return {id: (key.digest, _caller(key), key.revoked_s is not None) for id, key in keys.items()}


def _caller(key: Key) -> Caller:
    expires_ns = None if key.expires_s is None else key.expires_s * _SECOND_NS
    return Caller(key.tenant, key.id, key.scopes, expires_ns)
