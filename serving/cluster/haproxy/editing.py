"""The edits of HAProxy's configuration as Ray Serve renders it: text in, text out. Pure.

- gRPC calls are routed by the model that they name. Ray Serve routes by the metadata `application`, which no client of
  the Open Inference Protocol sends; HAProxy reads the name itself, field 1 of every request about a model. Calls that
  name none go to the front, and so do compressed messages, which the front relays (`front/grpc_relay.py`).
- Requests for a model without replicas are refused at once, slow heads are given up, and replicas learn the address of
  a caller who asks for more than inference.

A configuration that looks different from what is expected is left alone. Then everything works except gRPC without
that metadata, and /debug.
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

# The last of the headers, where replicas look for it. Over gRPC after the wait for the message: a stream may take long.
_STAMP = f"""\
    {MARK} deadlines count from here.
    http-request set-header {age.HEADER.decode()} "${{{AGE_KEY}}}-%[date(0,us)]"
"""
# Infer requests are spared it: heads that repeat are what makes them cheap. A client's own lacks the key.
_PEER = f"""\
    {MARK} the address of a caller who asks for more than inference.
    http-request set-header {PEER_HEADER} "${{{PEER_KEY}}}-%[src]" unless {{ path_end -i infer }}
"""
# uvicorn, in the front and in Ray's proxies, takes the body of what asks for another protocol for the next request.
_NO_UPGRADE = f"""\
    {MARK} nobody here speaks another protocol.
    http-request del-header upgrade
"""
_FRONTEND = re.compile(r"^frontend grpc_frontend\n(?:[ \t#].*\n|\n)*", re.MULTILINE)
_BIND = re.compile(r"^ *bind .* proto h2\n *mode http\n", re.MULTILINE)
# Servers that are a backup already are Ray's proxies.
_BACKEND = re.compile(r"^backend grpc-.*\n(?:[ \t#].*\n|\n)*", re.MULTILINE)
_SERVER = re.compile(r"^ *server (\S+) (\S+):(\d+) proto h2((?!.* backup\b).*)\n", re.MULTILINE)
_REFLECTION = "/grpc.reflection."
_DEFAULT = re.compile(r"^( *default_backend ).*$", re.MULTILINE)
# Enough bytes to be sure that the frame with the name has come; less only in a complete message. A client may open a
# stream long before its first message, and HAProxy would break off what exceeds the time. The name is looked for behind
# the message's prefix, and not by `ungrpc`, which finds nothing in a message that is not in HAProxy's buffer in full.
_ROUTING = f"""\
    {MARK} the model's name is field 1 of the message.
    acl names_application req.hdr(application) -m found
    acl about_a_model path_beg /inference.GRPCInferenceService/Model
    acl is_a_stream path /inference.GRPCInferenceService/ModelStreamInfer
    http-request wait-for-body time 20s at-least 12 if about_a_model !names_application !is_a_stream
    http-request wait-for-body time 1h at-least 12 if is_a_stream !names_application
    http-request set-var(txn.model) req.body,bytes(5),protobuf(1) if about_a_model !names_application
    acl is_a_name var(txn.model) -m reg ^[{NAME_CHARACTERS}]+$
    http-request set-header application %[var(txn.model)] if is_a_name !names_application
{_PEER}{_STAMP}{GRPC_STATUS}"""


_DEFAULTS = re.compile(r"^defaults\n *mode http\n", re.MULTILINE)
_HTTP_FRONTEND = re.compile(r"^frontend http_frontend\n *bind .*\n", re.MULTILINE)
_LISTENING = re.compile(r"^(frontend (?:http|grpc)_frontend\n(?: *#.*\n)* *bind )\S+:(\d+)", re.MULTILINE)
_STATS_SOCKET = re.compile(r"^( *stats socket .* mode) \d+", re.MULTILINE)
_PUBLIC_PAGES = re.compile(r"^(?:frontend prometheus|listen stats)\n(?:[ \t#].*\n?|\n)*", re.MULTILINE)
# Ray sets no bound on the time a request's head may take, so that a thousand slow clients could fill every place. And
# every request is logged to a port where nobody listens, a tenth of HAProxy's work; what goes wrong still is.
_PATIENCE = f"""\
    {MARK} a request's head must have come in this time.
    timeout http-request 10s
    option dontlog-normal
"""
# Where the front is not known: HAProxy has just been started again, and a 404 would be a lie.
_UNKNOWN = re.compile(r"^backend default_backend\n *http-request return status 404 .*\n", re.MULTILINE)
_NOT_YET = f"""\
backend default_backend
    {MARK} whoever asks before the applications are known may ask again.
    http-request return status 503 hdr Retry-After 1 content-type application/json string '{{"error":"not up yet"}}'
"""
# A request on a connection that another left behind is ended without a word if that fails, retries included: HAProxy
# takes the client for one that tries again by itself. `safe`: the first request of a client never rides on such a one.
_REUSE = re.compile(r"^( *http-reuse) always$", re.MULTILINE)
# The last server of every backend is Ray's Python proxy, where requests wait until there is a replica, whatever their
# deadline. Only a model that sleeps needs that: it is how it is waked.
_HTTP_OR_GRPC = re.compile(r"^backend (http|grpc)-(.*)\n(?:[ \t#].*\n|\n)*", re.MULTILINE)
_REPLICA = re.compile(r"^ *server (?!.* backup$).*$", re.MULTILINE)
_USE = re.compile(r"^ *use_backend ((?:http|grpc)-\S+) if .*\n", re.MULTILINE)
_WAITING = re.compile(r"^( *server .* backup)$", re.MULTILINE)
# Three tries, each as long at most, or as long before the next: who gets no connection learns of it within a second.
_CONNECT = re.compile(r"^( *timeout connect) .*$", re.MULTILINE)
_CONNECT_TIME = "300ms"
# How long a replica may take to answer a health check. Unset, it is the pause between checks, which is 250 ms while
# HAProxy does not trust a replica yet: a busy event loop would take all new replicas out of rotation.
_CHECK_TIME = "2s"


class Unexpected(Exception):
    """The configuration is not what this file was written for; the text says what is missing."""


def edited(config: str, sleepers: Collection[str] = ()) -> str:
    """The configuration with all changes. One that was edited before comes back as it is."""
    if MARK in config:
        return config
    return closed(routed_by_model(without_waiting(explained_by_the_front(guarded(config), sleepers), sleepers)))


def closed(config: str) -> str:
    """Without HAProxy's pages of statistics and metrics, which Ray opens on all addresses, and with its admin socket
    for our own user: whoever writes to that can stop HAProxy or send its requests elsewhere."""
    return _STATS_SOCKET.sub(r"\1 600", _PUBLIC_PAGES.sub("", config))


def listening(config: str, host: str) -> str:
    """With the frontends on this address. Ray would give the replicas the same one, and reach them by IPv4 only."""
    both = " v4v6" if host == "::" else ""
    return _LISTENING.sub(lambda found: f"{found[1]}{host}:{found[2]}{both}", config) if host else config


def guarded(config: str) -> str:
    """With an end to slow requests, and with the address of callers who ask for more than inference."""
    config, defaults = _DEFAULTS.subn(lambda found: found[0] + _PATIENCE, config)
    config, frontends = _HTTP_FRONTEND.subn(lambda found: found[0] + _STAMP + _PEER + _NO_UPGRADE + HTTP_STATUS, config)
    config = _REUSE.sub(r"\1 safe", _UNKNOWN.sub(_NOT_YET, config))
    if (defaults, frontends) != (1, 1):
        raise Unexpected(
            f"there are {defaults} `defaults` and {frontends} `frontend http_frontend` that look as expected"
        )
    return config


def explained_by_the_front(config: str, sleepers: Collection[str]) -> str:
    """With requests for a model that has no replica sent to the front, which knows why: it is being loaded, it was
    unloaded, it failed. HAProxy itself refuses only while a replica that it knows cannot be reached."""
    absent = {
        f"{found[1]}-{found[2]}"
        for found in _HTTP_OR_GRPC.finditer(config)
        if found[2] not in sleepers and not _REPLICA.search(found[0])
    }
    if f"http-{FRONT}" in absent or f"backend http-{FRONT}\n" not in config:
        return config
    return _USE.sub(lambda found: "" if found[1] in absent else found[0], config)


def without_waiting(config: str, sleepers: Collection[str]) -> str:
    """Where no replica is left, requests are refused, but for models that may sleep."""

    def refusing(backend: re.Match[str]) -> str:
        return backend[0] if backend[2] in sleepers else _WAITING.sub(r"\1 disabled", backend[0])

    times = rf"\1 {_CONNECT_TIME}\n    timeout check {_CHECK_TIME}"
    return _HTTP_OR_GRPC.sub(refusing, _CONNECT.sub(times, config))


def routed_by_model(config: str) -> str:
    """With routing of gRPC calls by model. One without gRPC comes back as it is."""
    if "frontend grpc_frontend" not in config:
        return config
    frontend = _FRONTEND.search(config)
    if frontend is None or f"backend {FRONT_BACKEND}\n" not in config:
        # Before the front is up there is nobody to route for; the next change comes through here again.
        return config
    section, binds = _BIND.subn(lambda found: found[0] + _ROUTING, frontend[0])
    section, defaults = _DEFAULT.subn(rf"\g<1>{FRONT_BACKEND}", section)
    if (binds, defaults) != (1, 1):
        raise Unexpected(f"frontend grpc_frontend has {binds} lines `bind … proto h2` and {defaults} `default_backend`")
    config = config[: frontend.start()] + section + config[frontend.end() :]
    return _BACKEND.sub(lambda backend: _SERVER.sub(_with_fast_door, backend[0]), config)


def _with_fast_door(found: re.Match[str]) -> str:
    """The replica's fast door, and its plain one for while that is shut and for reflection, which only that answers."""
    name, host, port, rest = found.groups()
    fast = f"    server {name}-fast {host}:{int(port) + FAST_GRPC_DISTANCE} proto h2{rest}\n"
    plain = f"    server {name} {host}:{port} proto h2{rest} backup\n"
    return f"    use-server {name} if {{ path_beg {_REFLECTION} }}\n{fast}{plain}"
