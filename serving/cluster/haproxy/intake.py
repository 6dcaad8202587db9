"""Makes HAProxy refuse requests that a replica could not answer in time: they cost the replica nothing.

A replica tells the most requests that may be in flight to it (`core/intake.py`) in a header of some answers, and a
script in HAProxy sets it as the server's `maxconn`. While all replicas of a model are full, HAProxy sends no further
requests for it on. It refuses them after the time that the header names: a client that asks again as soon as it is
refused would otherwise take the cores from the replica. Once a quarter of HAProxy's connections wait for the model, it
refuses at once.

With a tenant header, only those of tenants that have at least their share in flight already are refused, and as
soon as fewer than an eighth of the places are free: a tenant below its share finds one at once. If it had to wait for
the next, it would enter with the batch after the next, too late. If all are taken it waits, at most for HAProxy's
`timeout connect`. Pure functions from text to text.

HAProxy counts its refusals and tells them to the replicas with its health checks (`api/admission/kept_out.py`), so that
metrics, alerts and scaling see them.

HAProxy cannot see the priority of a request, which is in its body: among those let in, the scheduler ranks.
"""

import re
from collections.abc import Sequence

from serving.api.admission.bound import HEADER
from serving.api.admission.kept_out import HEADER as KEPT_OUT
from serving.cluster.haproxy.editing import HTTP_OR_GRPC, REPLICA
from serving.core.intake import UNBOUNDED
from serving.core.outcome import Reason
from serving.names import FRONT

PROCESS = "HEADWAY_PROCESS"  # an environment variable of HAProxy: a name that no other process of HAProxy has
SCRIPT = "headway-intake.lua"
CREDENTIAL = "authorization"
_HEADER = HEADER.decode()
LUA = f"""\
local hold_ms = {{}}
core.register_action("headway_bound", {{"http-res"}}, function(txn)
    local bound, hold = string.match(txn.sf:res_hdr("{_HEADER}"), "^(%d+) (%d+)$")
    local name = txn.sf:be_name()
    local backend = core.backends[name]
    local server = backend and backend.servers[txn.sf:srv_name()]
    if not (server and bound) then return end
    server:set_maxconn(bound)
    hold_ms[name] = tonumber(hold)
end, 0)
core.register_action("headway_hold", {{"http-req"}}, function(txn)
    local hold = hold_ms[txn.sf:be_name()] or 0
    if hold > 0 then core.msleep(hold) end
end, 0)
"""
_TEXT = f"request refused: {Reason.OVERLOAD.value}; retry later"
_REFUSALS = {
    "http": f"""status 503 content-type application/json hdr Retry-After 1 string '{{"error":"{_TEXT}"}}'""",
    "grpc": f"""status 200 hdr content-type application/grpc hdr grpc-status 14 hdr grpc-message "{_TEXT}" \
hdr grpc-retry-pushback-ms 1000""",
}
_PATHS = {"http": "/infer", "grpc": "/ModelInfer"}
_RESERVE = 8  # places: one in so many is kept free for tenants below their share
_TABLE = "headway_kept_out"
_COUNTED = f"""\
backend {_TABLE}
    stick-table type string len 128 size 10k store gpc0
"""
_GLOBAL = re.compile(r"^global\n", re.MULTILINE)
_SERVER = re.compile(r"^( *server .*)$", re.MULTILINE)  # for one without `maxconn`, be_conn_free would be -1


def bounded(config: str, script: str, tenant_header: str = "") -> str:
    """Returns the configuration with a bound on the requests in flight for each model; unchanged if it has one.

    script: the path of a file that holds `LUA`. tenant_header: names a request's tenant; "" for a single tenant. Where
        it is `authorization`, every credential has a share of its own.
    """
    if SCRIPT in config:
        return config

    def with_bound(found: re.Match[str]) -> str:
        if found[2] == FRONT:
            return found[0]
        head, rest = found[0].split("\n", 1)
        rest = _SERVER.sub(rf"\1 maxconn {UNBOUNDED}", rest)
        replicas = [f"{found[1]}-{found[2]}/{name}" for name in REPLICA.findall(rest)]
        return f"{head}\n{_rules(found[1], found[2], tenant_header, replicas)}{rest}"

    config = _GLOBAL.sub(f"global\n    lua-load-per-thread {script}\n", HTTP_OR_GRPC.sub(with_bound, config), count=1)
    return config.rstrip("\n") + "\n" + _COUNTED


def _rules(wire: str, model: str, tenant_header: str, replicas: Sequence[str]) -> str:
    """Returns the rules of a model's backend. wire: "http" or "grpc". replicas: its servers, as `backend/server`."""
    full = "" if tenant_header else "    acl is_full be_conn_free le 0\n"
    refused = "is_scarce { var(txn.beyond) -m int gt 0 }" if tenant_header else "is_full"
    told = f'"${{{PROCESS}}} %[str({model}),table_gpc0({_TABLE})] %[nbsrv]"'
    check = f"    http-check send hdr {KEPT_OUT.decode()} {told}\n" if wire == "http" else ""
    return f"""\
    acl is_inference path_end {_PATHS[wire]}
{full}    acl is_served nbsrv ge 1
{_shares(tenant_header, replicas) if tenant_header else ""}\
    acl is_refused var(txn.is_refused) -m bool
    http-request set-var(txn.is_refused) bool(true) if is_inference is_served {refused}
    http-request track-sc1 str({model}) table {_TABLE} if is_refused
    http-request sc-inc-gpc0(1) if is_refused
    http-request lua.headway_hold if is_refused {{ be_conn lt {UNBOUNDED // 4} }}
    http-request return {_REFUSALS[wire]} if is_refused
    http-response lua.headway_bound if {{ res.hdr({_HEADER}) -m found }}
    http-response del-header {_HEADER}
{check}"""


def _sample(tenant_header: str) -> str:
    """Returns HAProxy's expression for a request's tenant. A credential is hashed, since tokens of a provider may be
    equal in all the characters that a table keeps."""
    return f"req.hdr({tenant_header})" + (",crc32" if tenant_header == CREDENTIAL else "")


def _shares(tenant_header: str, replicas: Sequence[str]) -> str:
    """Returns the rules that compute by how much a request's tenant exceeds its share, times the number of tenants.

    A share is the number of places over the number of tenants that have sent requests in the last ten seconds. HAProxy
    counts among a tenant's requests in flight this one and those whose refusals it holds back."""
    taken = "".join(
        f"    http-request set-var(txn.places) srv_conn({replica}),add(txn.places) if is_inference\n"
        for replica in replicas
    )
    return f"""\
    acl names_tenant {_sample(tenant_header)} -m found
    stick-table type string len 64 size 10k expire 10s
    http-request track-sc0 {_sample(tenant_header)} if is_inference names_tenant
    http-request track-sc0 str(-) if is_inference !names_tenant
    http-request set-var(txn.free) be_conn_free if is_inference
    http-request set-var(txn.places) var(txn.free) if is_inference
{taken}\
    http-request set-var(txn.spare) var(txn.free),mul({_RESERVE}),sub(txn.places) if is_inference
    acl is_scarce var(txn.spare) -m int lt 0
    http-request set-var(txn.tenants) table_cnt if is_inference is_scarce
    http-request set-var(txn.beyond) sc0_trackers,mul(txn.tenants),sub(txn.places) if is_inference is_scarce
"""
