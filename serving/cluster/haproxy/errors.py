"""The errors that HAProxy sends over HTTP and gRPC if no replica can answer. Imports nothing heavy, as `command.py`.

A request whose replica died before it answered is retried once (RAY_SERVE_HAPROXY_RETRIES). If the second replica dies
too, the request may be the cause. Its answer then has a status that no retry policy repeats, does not suggest trying
again, and carries the request's id. Only an id of the client is known here: one made by a replica is lost with it.
"""

import re
from pathlib import Path

# Ray answers 500 in all cases. A client may retry if no replica is reachable. 502 is defined below.
_FILES = {
    "503": ("Service Unavailable", "no replica of this model can be reached at the moment; try again", 14),
    "504": ("Gateway Timeout", "the replica did not answer in time", 4),
}
ENDED = (
    "the replica's process ended before it answered (tries after the first: %rc); where a second try failed too, the \
request may be the reason, so do not repeat it as it is. x-request-id: '{id}'"
)
_MOST_ID = 128
_CAPTURED = "capture.req.hdr(0)"
_ERRORFILE = re.compile(r"^( *errorfile (503|504) )(?!\S*/headway-[^/\s]*$)\S+$", re.MULTILINE)
_ENDED_FILE = re.compile(r"^( *)errorfile 502 .*$", re.MULTILINE)
_GRPC_BACKEND = re.compile(r"^(backend grpc-.*\n)(?! *(?:errorfile|http-error))", re.MULTILINE)
# `%rc` is 0 where the request was not repeated: it did not fit into HAProxy's buffer (server.replay_kb).
_REPEATED = "{ var(txn.tries) -m sub 1 2 3 4 5 6 7 8 9 }"
CAPTURE = f"""\
    capture request header x-request-id len {_MOST_ID}
    http-after-response set-var-fmt(txn.tries) "%rc" if {{ status 502 }}
"""
HTTP_STATUS = f"{CAPTURE}    http-after-response set-status 500 if {_REPEATED}\n"
# gRPC's clients read `grpc-status` where HTTP's status is 200. 14, UNAVAILABLE, may be repeated; 13, INTERNAL, is not.
GRPC_STATUS = f"""\
{CAPTURE}    http-after-response set-header grpc-status 13 if {_REPEATED}
    http-after-response set-status 200 if {{ status 502 }}
"""


def with_clear_errors(config: str, folder: Path) -> str:
    """Returns the configuration with our own errors: the right status, a JSON body, and when to try again; for gRPC
    calls the equivalents. Writes errors that do not depend on the request to files in this folder."""
    for status, (reason, text, code) in _FILES.items():
        body = f'{{"error":"{text}"}}'
        head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
        content = f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
        (folder / f"headway-{status}.http").write_text(content, newline="")
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\ngrpc-status: {code}\r\n"
        content = f"{head}grpc-message: {text}\r\ngrpc-retry-pushback-ms: 1000\r\nContent-Length: 0\r\n\r\n"
        (folder / f"headway-grpc-{status}.http").write_text(content, newline="")
    own = "".join(f"    errorfile {status} {folder / f'headway-grpc-{status}.http'}\n" for status in _FILES)
    config = _GRPC_BACKEND.sub(lambda found: found[1] + own + _ended_over_grpc(), config)
    config = _ENDED_FILE.sub(lambda found: found[1] + _ended(), config)
    return _ERRORFILE.sub(lambda found: f"{found[1]}{folder / f'headway-{found[2]}.http'}", config)


def _ended() -> str:
    text = ENDED.format(id=f"%[{_CAPTURED},json(utf8s)]")
    body = f'{{\\"error\\":\\"{text}\\"}}'
    return f'http-error status 502 content-type application/json lf-string "{body}" hdr x-request-id "%[{_CAPTURED}]"'


def _ended_over_grpc() -> str:
    """Returns the gRPC error. Its negative pushback keeps gRPC clients from retrying, whatever their policy."""
    text = ENDED.format(id=f"%[{_CAPTURED},url_enc]")
    return f"""\
    http-error status 502 hdr content-type application/grpc hdr grpc-status 14 hdr grpc-message "{text}" \
hdr grpc-retry-pushback-ms -1 hdr x-request-id "%[{_CAPTURED}]"
"""
