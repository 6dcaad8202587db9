"""What HAProxy answers where no replica can, in HTTP's words and in gRPC's. Imports nothing heavy, as `haproxy.py`.

A request whose replica ended before it answered was given to one more (RAY_SERVE_HAPROXY_RETRIES). If that ended too,
the request may be the reason: its answer then has a status that nobody's policy repeats, no word of trying again, and
the request's id. The id has to be the client's: one that a replica makes up ends with it.
"""

import re
from pathlib import Path

# Ray calls all of it 500. Who finds no replica may try again; 502 is told below.
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
    """With errors of our own: the status it is, JSON that says so, and when to try again; the same in gRPC's words for
    its calls. Those without facts of the request are files in this folder."""
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
    """A negative pushback: gRPC's clients do not repeat the call by themselves, whatever their policy."""
    text = ENDED.format(id=f"%[{_CAPTURED},url_enc]")
    return f"""\
    http-error status 502 hdr content-type application/grpc hdr grpc-status 14 hdr grpc-message "{text}" \
hdr grpc-retry-pushback-ms -1 hdr x-request-id "%[{_CAPTURED}]"
"""
