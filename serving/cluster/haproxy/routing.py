"""Makes HAProxy choose the version that answers a request. Pure functions from text to text.

A request that names its version goes to that version's backend: over HTTP by its path, as Ray Serve routes it; over
gRPC by field 2 of the message. For one that names none, HAProxy looks the model up in a map (`following.py`), whose
value is `stable|candidate|share`, and draws a number from the caller's sticky key; below the share, the candidate
answers. `traffic/routes.py` describes the choice. One value holds all three, so no request sees half of a change.

Only a configuration in which a model has several versions gets these rules: those of a server with one version per
model are as before, except that requests about routes go to the front.
"""

import re

from serving.cluster.haproxy.editing import APPLICATION_SET, HTTP_FRONTEND, MARK, Unexpected
from serving.names import FRONT, FRONT_TAILS, model_path, version_path
from serving.traffic.routes import SHARES, application_of, backend_of

KEY_HEADER = "x-routing-key"
_OF_VERSION = re.compile(r"^ *acl is_http-\S+ path_beg /v2/models/([^/\s]+)/versions/([^/\s]+)/$", re.MULTILINE)
_USE = re.compile(r"^ *use_backend http-(\S+) if .*\n", re.MULTILINE)
_GLOBAL = re.compile(r"^global\n", re.MULTILINE)
_UNKNOWN = "it is not known yet which version answers; try again"
_REFUSALS = {
    "http": f"""status 503 content-type application/json hdr Retry-After 1 string '{{"error":"{_UNKNOWN}"}}'""",
    "grpc": f"""status 200 hdr content-type application/grpc hdr grpc-status 14 hdr grpc-message "{_UNKNOWN}" \
hdr grpc-retry-pushback-ms 1000""",
}
# The paths below a model's that the front answers, and no replica.
_FRONTS = f"    use_backend http-{FRONT} if {{ path,field(5,/) -m str {' '.join(FRONT_TAILS)} }}\n"


def versions(config: str) -> dict[str, list[str]]:
    """Returns the models with several versions in Ray's configuration, each with all its versions but the first."""
    found: dict[str, list[str]] = {}
    for model, version in _OF_VERSION.findall(config):
        found.setdefault(model, []).append(version)
    return found


def routed_by_version(config: str, table: str, script: str) -> str:
    """Returns an edited configuration with the choice of versions; unchanged if it has it, or knows no front yet.

    table: the path of the map's file. script: the path of a file with the script that keeps the map current.
    Raises Unexpected."""
    first = _USE.search(config)
    if _FRONTS in config or first is None or f"backend http-{FRONT}\n" not in config:
        return config
    several = versions(config)
    if not several:
        return config[: first.start()] + _FRONTS + config[first.start() :]
    used = {found[1] for found in _USE.finditer(config)}
    config = config[: first.start()] + _FRONTS + _backends(several, used) + config[first.start() :]
    config, frontends = HTTP_FRONTEND.subn(lambda found: found[0] + _over_http(several, table), config)
    if frontends != 1:
        raise Unexpected(f"there are {frontends} `frontend http_frontend` that look as expected")
    config = config.replace(APPLICATION_SET, APPLICATION_SET + _over_grpc(several, table))
    return _GLOBAL.sub(f"global\n    lua-load {script}\n", config, count=1)


def _over_http(several: dict[str, list[str]], table: str) -> str:
    paths = [model_path(model) for model in several]
    return f"""\
    {MARK} which version answers a request that names none.
    acl has_versions path_beg {" ".join(f"{path}/" for path in paths)}
    acl has_versions path {" ".join(paths)}
    acl names_version path,field(5,/) -m str versions {" ".join(FRONT_TAILS)}
    http-request set-var(txn.model) path,field(4,/) if has_versions !names_version
{_choice("http", several, table, "has_versions !names_version")}"""


def _over_grpc(several: dict[str, list[str]], table: str) -> str:
    """Returns the rules of gRPC. By now all calls whose model can be read have it in the header `application`."""
    named = "".join(
        f"    http-request set-var(txn.application) str({application_of(model, version)}) "
        f"if has_versions {{ var(txn.model) -m str {model} }} {{ var(txn.version) -m str {version} }}\n"
        for model, found in several.items()
        for version in found
    )
    return f"""\
    {MARK} the version is field 2 of the message. A message that the front has to relay brings the caller's address.
    acl has_versions req.hdr(application) -m str {" ".join(several)}
    acl has_application req.hdr(application) -m found
    acl is_plain req.body,bytes(0,1),hex -m str 00
    acl has_own_key req.fhdr({KEY_HEADER}) -m found
    acl has_own_key req.fhdr(authorization) -m found
    http-request set-header {KEY_HEADER} %[src] if about_a_model !has_application !has_own_key
    http-request wait-for-body time 20s at-least 12 if has_versions about_a_model !is_a_stream
    http-request wait-for-body time 1h at-least 12 if has_versions is_a_stream
    http-request set-var(txn.model) req.hdr(application) if has_versions
    http-request set-var(txn.version) req.body,bytes(5),protobuf(2) if has_versions about_a_model is_plain
    acl names_version var(txn.version) -m len gt 0
{_choice("grpc", several, table, "has_versions !names_version")}{named}\
    http-request set-header application %[var(txn.application)] if {{ var(txn.application) -m found }}
"""


def _choice(wire: str, several: dict[str, list[str]], table: str, condition: str) -> str:
    """Returns the rules that set `txn.application` from `txn.model` under this condition.

    A candidate without a replica gets no requests: the stable version answers them."""
    asleep = "".join(
        f"    http-request set-var(txn.application) var(txn.route),field(1,|) "
        f"if is_in_share {{ var(txn.application) -m str {name} }} {{ nbsrv({wire}-{backend_of(name)}) eq 0 }}\n"
        for name in _applications(several)
    )
    return f"""\
    http-request set-var(txn.route) var(txn.model),map_str({table}) if {condition}
    acl is_routed var(txn.route) -m found
    acl is_split var(txn.share) -m int gt 0
    acl has_key var(txn.key) -m len gt 0
    acl is_in_share var(txn.above_share) -m int lt 0
    http-request return {_REFUSALS[wire]} if {condition} !is_routed
    http-request set-var(txn.application) var(txn.route),field(1,|) if is_routed
    http-request set-var(txn.share) var(txn.route),field(3,|) if is_routed
    http-request set-var(txn.key) req.fhdr({KEY_HEADER}) if is_split
    http-request set-var(txn.key) req.fhdr(authorization) if is_split !has_key
    http-request set-var-fmt(txn.key) "%[src]" if is_split !has_key
    http-request set-var(txn.draw) var(txn.model),concat(:,txn.key),xxh32,mod({SHARES}) if is_split
    http-request set-var(txn.above_share) var(txn.draw),sub(txn.share) if is_split
    http-request set-var(txn.application) var(txn.route),field(2,|) if is_in_share
{asleep}"""


def _applications(several: dict[str, list[str]]) -> list[str]:
    found = [[model, *(application_of(model, version) for version in more)] for model, more in several.items()]
    return [application for of_model in found for application in of_model]


def _backends(several: dict[str, list[str]], used: set[str]) -> str:
    """Returns the rules for the backend of HTTP. Where the chosen or named version has no replica, the front says why.

    used: the backends that have a replica, after `http-`."""
    chosen = "".join(
        f"    use_backend http-{backend_of(name)} if {{ var(txn.application) -m str {name} }}\n"
        for name in _applications(several)
        if backend_of(name) in used
    )
    absent = "".join(
        f"    use_backend http-{FRONT} if {{ path_beg {version_path(model, version)}/ }}\n"
        for model, found in several.items()
        for version in found
        if backend_of(application_of(model, version)) not in used
    )
    return f"{chosen}{absent}    use_backend http-{FRONT} if is_routed\n"
