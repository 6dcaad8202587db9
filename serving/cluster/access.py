"""Builds what a process of Ray Serve needs to know who calls and what they may do. For replicas and the front."""

import asyncio
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from serving.api.admission.gate import Gate
from serving.cluster.environment import local_gate
from serving.cluster.redis import connected
from serving.config import AuthSettings, RedisSettings, Settings
from serving.core.clock import Calendar
from serving.store.place import state_place
from serving.traffic.tenants import Tenant

if TYPE_CHECKING:
    from serving.gateway.audit import Entry
    from serving.gateway.tenant_quota import TenantQuota

MOST_REFUSED_BYTES = 16 << 20  # of the audit's entries about refusals
STORE_LIMIT_S = 0.1  # for one call of Redis


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The settings that say who may call, and how often. Sent to every process.

    auth: None if nobody needs a credential. state: where keys and the audit are kept. tenant_header: the header in
    which a client names its tenant; where callers need a credential, it may only repeat the credential's.
    redis: where replicas share quotas; None if each has its own share. replicas: how many may run, of all models.
    """

    auth: AuthSettings | None = None
    state: str = ""
    tenants: Mapping[str, Tenant] = field(default_factory=dict)
    tenant_header: str = ""
    redis: RedisSettings | None = None
    replicas: int = 1


def access(settings: Settings) -> Access:
    """Returns what the settings say. Call it where they are deployed. Raises NoState."""
    server = settings.server
    return Access(
        auth=server.auth if server.needs_credentials else None,
        state=state_place(server.state) if server.needs_credentials else "",
        tenants=settings.declared_tenants(),
        tenant_header=server.tenant_header,
        redis=server.redis,
        replicas=settings.most_replicas(),
    )


async def open_gate(access: Access, admin_token: str) -> tuple[Gate, "asyncio.Task[None] | None"]:
    """Returns the gate of this process, and the task that keeps it current, if it needs one.

    Raises ModuleNotFoundError with advice without `headway[auth]`."""
    local = local_gate(admin_token)
    if access.auth is None:
        return local, None
    # Imported here, so that servers without credentials need no package for them.
    from serving.gateway.callers import Callers
    from serving.gateway.gate import KeyGate
    from serving.gateway.key_log import KeyLog
    from serving.gateway.tokens import TokenRules, Tokens, fetcher
    from serving.store.objects import open_store

    log = KeyLog(open_store(access.state)) if access.auth.keys else None
    tokens = None
    if jwt := access.auth.jwt:
        rules = TokenRules(jwt.issuer, jwt.audience, jwt.tenant_claim, jwt.scopes_claim, tuple(jwt.algorithms))
        tokens = Tokens(rules, fetcher(jwt.jwks))
    callers = Callers(log, tokens)
    await callers.look(Calendar.now_ns())
    gate = KeyGate(
        callers,
        local=local,
        sees=lambda tenant, model: tenant not in access.tenants or access.tenants[tenant].may_see(model),
        note=_audit(access.state),
        claim=access.tenant_header or "x-tenant-id",
    )

    async def keep() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(callers.keep_current())
            group.create_task(gate.keep_telling())

    return gate, asyncio.get_running_loop().create_task(keep())


def _audit(state: str) -> Callable[["Entry"], None] | None:
    """Returns a function that writes an entry of this process in a thread; None if there is no audit."""
    from serving.gateway.audit import AuditLog, audit_folder, refused_folder

    folder = audit_folder(state)
    if folder is None:
        return None
    writer = f"{os.uname().nodename}-{os.getpid()}"
    changes, refusals = (
        AuditLog(folder, writer),
        AuditLog(refused_folder(folder), writer, most_bytes=MOST_REFUSED_BYTES),
    )
    thread = ThreadPoolExecutor(1, thread_name_prefix="audit")

    def note(entry: "Entry") -> None:
        log = refusals if entry.result.startswith("refused") else changes
        thread.submit(log.write, [entry])

    return note


async def open_quota(access: Access, replica: str) -> tuple["TenantQuota | None", "asyncio.Task[None] | None"]:
    """Returns the quotas of this replica, None without tenants, and the task that shares them with the others, if any.

    Raises ModuleNotFoundError with advice without `headway[redis]`."""
    if not access.tenants:
        return None, None
    # Imported here, as above.
    from serving.gateway.quotas import Quotas
    from serving.gateway.tenant_quota import TenantQuota

    if access.redis is None:
        return TenantQuota(Quotas(access.tenants, replica=replica, replicas=access.replicas)), None
    from serving.store.keys import Keys
    from serving.store.redis import RedisQuotaStore

    client, guard = connected(access.redis, STORE_LIMIT_S)
    quotas = Quotas(
        access.tenants,
        store=RedisQuotaStore(client, Keys()),
        guard=guard,
        replica=replica,
        replicas=access.replicas,
    )
    return TenantQuota(quotas), asyncio.get_running_loop().create_task(quotas.run())
