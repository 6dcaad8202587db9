"""A server of two tenants for tests: `acme` sees the models `ours` and `tale`, `globex` sees `hers`; and the
credentials, good and bad, with which they are asked for.

`none` and `nope` are names of models that are not there, as long as `ours` and `tale`, so that answers can be compared.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from models.reference import linear_spec, words_spec
from models.spec import ModelSpec
from serving.api.admission.local_gate import LocalGate
from serving.api.admission.secret import key
from serving.api.http.front import Viewer
from serving.api.shared_memory.regions import Regions
from serving.cluster.front.routing import RouteControl
from serving.features.views import Feature, FeatureView, FeatureViews, Missing
from serving.gateway.audit import Entry
from serving.gateway.callers import Callers
from serving.gateway.gate import KeyGate
from serving.gateway.key_log import KeyLog
from serving.gateway.keys import Scope
from serving.registry.log import ModelLog
from serving.testing.clock import ManualClock
from serving.testing.features import MemoryFeatureStore
from serving.testing.objects import MemoryObjects
from tests.gateway.feature_stores import online_features
from tests.gateway.signers import forged, public, token, tokens
from tests.gateway.stories import NOW_S, S, bearer, creation, fixed, revocation
from tests.house import House, house
from tests.offers import Control, Releases, Switches

OURS, TALE, HERS = "ours", "tale", "hers"
ABSENT = {OURS: "none", TALE: "nope"}
MODELS = (linear_spec(name=OURS), words_spec(name=TALE), linear_spec(name=HERS))
SEEN = {"acme": {OURS, TALE}, "globex": {HERS}}
LIVE_PAGES = (
    "/metrics",
    "/metrics/targets",
    "/debug/state",
    "/debug/stacks",
    "/debug/routes",
    "/dashboard/data",
    "/audit/data",
    "/releases/data",
)
AGE = Feature(name="age", datatype="INT64", missing=Missing.DEFAULT, default=0)
VIEW = FeatureView(name="profile", entity="user", key="user_id", features=(AGE,))
ACME, GLOBEX, ADMIN, OTHER_SCOPE, REVOKED, EXPIRED, UNKNOWN, ENDING, GLOBEX_ADMIN = map(fixed, range(1, 10))

Headers = dict[str, str]
# Credentials by what is special about them: of acme, unless the name says otherwise.
CREDENTIALS: Mapping[str, Headers] = {
    "own tenant": {"authorization": bearer(ACME)},
    "own tenant, named": {"authorization": bearer(ACME), "x-tenant-id": "acme"},
    "a token of the own tenant": {"authorization": f"Bearer {token('rsa').decode()}"},
    "an operator": {"authorization": bearer(ADMIN)},
    "other tenant": {"authorization": bearer(GLOBEX)},
    "another scope": {"authorization": bearer(OTHER_SCOPE)},
    "the tenant of another": {"authorization": bearer(ACME), "x-tenant-id": "globex"},
    "no key": {},
    "a revoked key": {"authorization": bearer(REVOKED)},
    "an expired key": {"authorization": bearer(EXPIRED)},
    "an unknown key": {"authorization": bearer(UNKNOWN)},
    "garbage": {"authorization": "Bearer nonsense"},
    "another scheme": {"authorization": f"Basic {ACME.text}"},
    "an expired token": {"authorization": f"Bearer {token(exp=NOW_S - 3600).decode()}"},
    "a token without a signature": {"authorization": f"Bearer {forged({'alg': 'none', 'kid': 'rsa'}, None).decode()}"},
    "an HMAC of the public key": {
        "authorization": f"Bearer {forged({'alg': 'HS256', 'kid': 'rsa'}, public('rsa')).decode()}"
    },
    "a token of a foreign kid": {"authorization": f"Bearer {token('other').decode()}"},
}
OTHER_SCOPES = (Scope.FEATURES_WRITE, Scope.FEEDBACK, Scope.REGISTRY_APPROVE, Scope.RELEASE)
VALID = frozenset(("own tenant", "own tenant, named", "a token of the own tenant", "an operator"))
USED_TEXTS = tuple(fixed(number).text for number in range(1, 10)) + tuple(
    headers["authorization"].split()[1] for name, headers in CREDENTIALS.items() if "token" in name or "HMAC" in name
)


class Tenancy:
    """The running server with its keys. audit: the entries that its gate has noted. seen: what a page was shown for."""

    def __init__(self, seen: Mapping[str, Collection[str]]) -> None:
        records = (
            creation(ACME, "acme"),
            creation(GLOBEX, "globex"),
            creation(ADMIN, "acme", (Scope.PREDICT, Scope.ADMIN)),
            creation(OTHER_SCOPE, "acme", OTHER_SCOPES),
            creation(REVOKED, "acme"),
            revocation(REVOKED.id),
            creation(EXPIRED, "acme", expires_s=NOW_S),
            creation(ENDING, "acme"),
            creation(GLOBEX_ADMIN, "globex", (Scope.PREDICT, Scope.ADMIN)),
        )
        self.store = MemoryObjects()
        self.clock = ManualClock(NOW_S * S)
        for record in records:
            self.write(record)
        self.callers = Callers(KeyLog(self.store), tokens(), calendar=self.clock)
        asyncio.run(self.callers.look(NOW_S * S))
        self.audit: list[Entry] = []
        # Requests come through a load balancer that does not tell addresses: failures of this test are not limited.
        self.gate = KeyGate(
            self.callers,
            local=LocalGate(peer_header="x-headway-peer", peer_key=key("peer")),
            sees=lambda tenant, model: model in seen.get(tenant, ()),
            note=self.audit.append,
            calendar=self.clock,
        )
        self.served: House

    def write(self, record: bytes) -> None:
        self.store.objects[f"keys/log/{len(self.store.objects) + 1:012}.json"] = record

    def revoke(self, id: str) -> None:
        """Writes the revocation of a key, and lets the server look for changes."""
        self.write(revocation(id))
        looking = asyncio.run_coroutine_threadsafe(self.callers.look(NOW_S * S), self.served.loop)
        looking.result(10)


async def page(query: str, viewer: Viewer) -> tuple[str, bytes]:
    """Shows the names of those models that exist for the caller."""
    return "text/plain", " ".join(name for name in (OURS, TALE, HERS) if viewer.sees(name)).encode()


@contextmanager
def tenancy(
    grpc_door: str = "fast",
    regions: Regions | None = None,
    *,
    specs: Sequence[ModelSpec] = MODELS,
    seen: Mapping[str, Collection[str]] = SEEN,
    **offers: Any,
) -> Iterator[Tenancy]:
    """Runs the server. Plain requests to the first model take the fast path.

    seen: the models that exist for each tenant. offers: see `house`."""
    made = Tenancy(seen)
    features = online_features(FeatureViews.of([VIEW]), MemoryFeatureStore(made.clock), calendar=made.clock)
    routes = RouteControl(partial(ModelLog, MemoryObjects()), calendar=made.clock)
    routes.serve({spec.name: {spec.version: spec.name} for spec in specs})
    offers = {"control": Control(), "switches": Switches(), "features": features, "routes": routes} | offers
    offers = {"releases": Releases()} | offers
    offers = {"pages": dict.fromkeys(LIVE_PAGES, page)} | offers
    with house(*specs, grpc_door=grpc_door, regions=regions, gate=made.gate, **offers) as made.served:
        yield made


Expect = Callable[[str], int]  # the HTTP status of a request with the credential of this name; 200: it is let in


def everybody(who: str) -> int:
    """Expects what is open to all, also without a key."""
    return 200


def with_a_key(who: str) -> int:
    """Expects what any valid credential may."""
    if who == "the tenant of another":
        return 403
    return 200 if who in VALID or who in ("other tenant", "another scope") else 401


def operators(who: str) -> int:
    """Expects what only the scope `admin` allows."""
    known = with_a_key(who)
    return known if known != 200 or who == "an operator" else 403


def of_a_model(expect: Expect) -> Expect:
    """Expects the same, and 404 of a tenant for which the model does not exist."""
    return lambda who: 404 if who == "other tenant" else expect(who)


def predicting(who: str) -> int:
    """Expects what the scope `predict` allows, for a model of `acme`."""
    return 404 if who == "other tenant" else 403 if who == "another scope" else with_a_key(who)


def feeding(who: str) -> int:
    """Expects what the scope `features:write` allows."""
    known = with_a_key(who)
    return known if known != 200 or who == "another scope" else 403


def telling(who: str) -> int:
    """Expects what the scope `feedback` allows, for a model of `acme`. The token has it too."""
    if who == "a token of the own tenant":
        return 200
    return 404 if who == "other tenant" else feeding(who)


def releasing(who: str) -> int:
    """Expects what the scope `release` or `registry:approve` allows."""
    return feeding(who)  # the same credential has both scopes


def reading(who: str) -> int:
    """Expects what the scope `predict` allows, for features, whose views exist for all tenants."""
    return 403 if who == "another scope" else with_a_key(who)
