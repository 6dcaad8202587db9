"""Edits HAProxy's configuration as Ray Serve renders it. Pure functions from text to text.

- gRPC calls are routed by the model that they name. Ray Serve routes by the metadata `application`, which no client of
  the Open Inference Protocol sends; HAProxy reads the name itself, field 1 of every request about a model. Calls that
  name none go to the front, and so do compressed messages, which the front relays (`front/grpc_relay.py`).
- Requests for a model without replicas are rejected at once, slow request headers time out, and replicas get the
  address of the caller of a request other than inference.

A configuration that differs from the expected one is not changed. Then everything works except gRPC without that
metadata, and /debug.
"""

import re
from collections.abc import Collection

from serving.api.admission import age
from serving.cluster.haproxy.errors import GRPC_STATUS, HTTP_STATUS
from serving.names import FRONT, NAME_CHARACTERS
from serving.port_ranges import FAST_GRPC_DISTANCE

FRONT_BACKEND = f"grpc-{FRONT}"
MARK = "# Headway:"
PEER_HEADER = "x-headway-peer"  # as serving/api/admission/gate.py reads it
# The keys that tell HAProxy's headers from a client's own, as variables of its environment: its file holds no secret.
AGE_KEY, PEER_KEY = "HEADWAY_AGE_KEY", "HEADWAY_PEER_KEY"

# Added as the last header, where replicas look for it. Over gRPC it follows the wait for the message, because a stream
# may be open for long before its first message.
_STAMP = f"""\
    {MARK} deadlines count from here.
    http-request set-header {age.HEADER.decode()} "${{{AGE_KEY}}}-%[date(0,us)]"
"""
# Infer requests do not get it: identical heads are what makes them cheap. A client cannot forge it without the key.
_PEER = f"""\
    {MARK} the caller's address, for requests other than inference.
    http-request set-header {PEER_HEADER} "${{{PEER_KEY}}}-%[src]" unless {{ path_end -i infer }}
"""
_HIDDEN = f"""\
    {MARK} the index tells callers with a credential which models there are.
    http-request return status 404 content-type text/plain string "no such path" if {{ path -i /-/routes }}
"""
# uvicorn, in the front and in Ray's proxies, parses the body of a request with an Upgrade header as the next request.
_NO_UPGRADE = f"""\
    {MARK} no server here supports another protocol.
    http-request del-header upgrade
"""
_FRONTEND = re.compile(r"^frontend grpc_frontend\n(?:[ \t#].*\n|\n)*", re.MULTILINE)
_BIND = re.compile(r"^ *bind .* proto h2\n *mode http\n", re.MULTILINE)
# Servers that are already marked as backup are Ray's proxies.
_BACKEND = re.compile(r"^backend grpc-.*\n(?:[ \t#].*\n|\n)*", re.MULTILINE)
_SERVER = re.compile(r"^ *server (\S+) (\S+):(\d+) proto h2((?!.* backup\b).*)\n", re.MULTILINE)
_REFLECTION = "/grpc.reflection."
_DEFAULT = re.compile(r"^( *default_backend ).*$", re.MULTILINE)
# 12 bytes are enough to be sure that the frame with the name has arrived; only a complete message can have fewer. The
# wait for streams is long, because a client may open a stream long before its first message and HAProxy ends a stream
# that exceeds the wait. The name is read after skipping the message's prefix (5 bytes), not with `ungrpc`, which finds
# nothing in a message that does not fit into HAProxy's buffer.
APPLICATION_SET = "    http-request set-header application %[var(txn.model)] if is_a_name !names_application\n"
_ROUTING = f"""\
    {MARK} the model's name is field 1 of the message.
    acl names_application req.hdr(application) -m found
    acl about_a_model path_beg /inference.GRPCInferenceService/Model
    acl is_a_stream path /inference.GRPCInferenceService/ModelStreamInfer
    http-request wait-for-body time 20s at-least 12 if about_a_model !names_application !is_a_stream
    http-request wait-for-body time 1h at-least 12 if is_a_stream !names_application
    http-request set-var(txn.model) req.body,bytes(5),protobuf(1) if about_a_model !names_application
    acl is_a_name var(txn.model) -m reg ^[{NAME_CHARACTERS}]+$
{APPLICATION_SET}{_PEER}{_STAMP}{GRPC_STATUS}"""


_DEFAULTS = re.compile(r"^defaults\n *mode http\n", re.MULTILINE)
HTTP_FRONTEND = re.compile(r"^frontend http_frontend\n *bind .*\n", re.MULTILINE)
_LISTENING = re.compile(r"^(frontend (?:http|grpc)_frontend\n(?: *#.*\n)* *bind )\S+:(\d+)", re.MULTILINE)
_STATS_SOCKET = re.compile(r"^( *stats socket .* mode) \d+", re.MULTILINE)
_PUBLIC_PAGES = re.compile(r"^(?:frontend prometheus|listen stats)\n(?:[ \t#].*\n?|\n)*", re.MULTILINE)
# Ray sets no timeout for request headers, so a thousand slow clients could use up all connections. Ray also logs every
# request to a port on which no process listens, a tenth of HAProxy's work; with this option only errors are logged.
_PATIENCE = f"""\
    {MARK} a request's headers must arrive within this time.
    timeout http-request 10s
    option dontlog-normal
"""
# HAProxy does not know the front yet, because it has just been restarted: 404 would be wrong.
_UNKNOWN = re.compile(r"^backend default_backend\n *http-request return status 404 .*\n", re.MULTILINE)
_NOT_YET = f"""\
backend default_backend
    {MARK} the applications are not known yet; clients may try again.
    http-request return status 503 hdr Retry-After 1 content-type application/json string '{{"error":"not up yet"}}'
"""
# If a reused server connection fails, HAProxy closes the client's connection without an answer and without a retry,
# because it expects the client to retry. `safe`: the first request of a client never uses such a connection.
_REUSE = re.compile(r"^( *http-reuse) always$", re.MULTILINE)
# The last server of every backend is Ray's Python proxy, in which requests wait for a replica regardless of their
# deadline. Only sleeping models need it: a waiting request makes Ray start a replica.
HTTP_OR_GRPC = re.compile(r"^backend (http|grpc)-(.*)\n(?:[ \t#].*\n|\n)*", re.MULTILINE)
REPLICA = re.compile(r"^ *server (\S+) (?!.* backup\b).*$", re.MULTILINE)
_USE = re.compile(r"^ *use_backend ((?:http|grpc)-\S+) if .*\n", re.MULTILINE)
_WAITING = re.compile(r"^( *server .* backup)$", re.MULTILINE)
# Three tries of at most this time each, so a client without a connection gets an error within a second.
_CONNECT = re.compile(r"^( *timeout connect) .*$", re.MULTILINE)
_CONNECT_TIME = "300ms"
# The timeout of health checks. If unset, it is the time between checks, which is 250 ms for a new replica: a blocked
# event loop would take all new replicas out of rotation.
_CHECK_TIME = "2s"


class Unexpected(Exception):
    """The configuration differs from the expected one. The text says what is missing."""


def edited(config: str, sleepers: Collection[str] = ()) -> str:
    """Returns the configuration with all edits; a configuration that was edited before is returned unchanged.

    Raises Unexpected. sleepers: the models that may have no replica."""
    if MARK in config:
        return config
    return closed(routed_by_model(without_waiting(explained_by_the_front(guarded(config), sleepers), sleepers)))


def closed(config: str) -> str:
    """Removes HAProxy's pages of statistics and metrics, which Ray opens on all addresses, and restricts its admin
    socket to our own user, because a writer to it can stop HAProxy or redirect requests."""
    return _STATS_SOCKET.sub(r"\1 600", _PUBLIC_PAGES.sub("", config))


def listening(config: str, host: str) -> str:
    """Makes the frontends listen on this address, "" to change nothing. It cannot be set with Ray's own option, because
    replicas would listen on it too, and Ray reaches them by IPv4 only."""
    both = " v4v6" if host == "::" else ""
    return _LISTENING.sub(lambda found: f"{found[1]}{host}:{found[2]}{both}", config) if host else config


def private(config: str) -> str:
    """Hides the page on which Ray lists all applications, for a server whose callers need a credential."""
    return config if _HIDDEN in config else HTTP_FRONTEND.sub(lambda found: found[0] + _HIDDEN, config)


def guarded(config: str) -> str:
    """Adds a timeout for slow request headers, the arrival time, and the caller's address for requests other than
    inference. Raises Unexpected."""
    config, defaults = _DEFAULTS.subn(lambda found: found[0] + _PATIENCE, config)
    config, frontends = HTTP_FRONTEND.subn(lambda found: found[0] + _STAMP + _PEER + _NO_UPGRADE + HTTP_STATUS, config)
    config = _REUSE.sub(r"\1 safe", _UNKNOWN.sub(_NOT_YET, config))
    if (defaults, frontends) != (1, 1):
        raise Unexpected(
            f"there are {defaults} `defaults` and {frontends} `frontend http_frontend` that look as expected"
        )
    return config


def explained_by_the_front(config: str, sleepers: Collection[str]) -> str:
    """Sends requests for a model without replicas to the front, which knows the reason (loading, unloaded, failed).

    HAProxy itself rejects requests only if none of the replicas that it knows can be reached."""
    absent = {
        f"{found[1]}-{found[2]}"
        for found in HTTP_OR_GRPC.finditer(config)
        if found[2] not in sleepers and not REPLICA.search(found[0])
    }
    if f"http-{FRONT}" in absent or f"backend http-{FRONT}\n" not in config:
        return config
    return _USE.sub(lambda found: "" if found[1] in absent else found[0], config)


def without_waiting(config: str, sleepers: Collection[str]) -> str:
    """Makes HAProxy reject requests if no replica is reachable, except for models that may sleep."""

    def refusing(backend: re.Match[str]) -> str:
        return backend[0] if backend[2] in sleepers else _WAITING.sub(r"\1 disabled", backend[0])

    times = rf"\1 {_CONNECT_TIME}\n    timeout check {_CHECK_TIME}"
    return HTTP_OR_GRPC.sub(refusing, _CONNECT.sub(times, config))


def routed_by_model(config: str) -> str:
    """Adds the routing of gRPC calls by model; returns a configuration without gRPC unchanged. Raises Unexpected."""
    if "frontend grpc_frontend" not in config:
        return config
    frontend = _FRONTEND.search(config)
    if frontend is None or f"backend {FRONT_BACKEND}\n" not in config:
        # Before the front is up there is nothing to route; the next change of the configuration is edited again.
        return config
    section, binds = _BIND.subn(lambda found: found[0] + _ROUTING, frontend[0])
    section, defaults = _DEFAULT.subn(rf"\g<1>{FRONT_BACKEND}", section)
    if (binds, defaults) != (1, 1):
        raise Unexpected(f"frontend grpc_frontend has {binds} lines `bind … proto h2` and {defaults} `default_backend`")
    config = config[: frontend.start()] + section + config[frontend.end() :]
    return _BACKEND.sub(lambda backend: _SERVER.sub(_with_fast_door, backend[0]), config)


def _with_fast_door(found: re.Match[str]) -> str:
    """Returns the lines of a replica: its fast door, and its plain door as backup and for reflection, which only the
    plain door answers."""
    name, host, port, rest = found.groups()
    fast = f"    server {name}-fast {host}:{int(port) + FAST_GRPC_DISTANCE} proto h2{rest}\n"
    plain = f"    server {name} {host}:{port} proto h2{rest} backup\n"
    return f"    use-server {name} if {{ path_beg {_REFLECTION} }}\n{fast}{plain}"
