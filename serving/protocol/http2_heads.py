"""Checks whether the headers of a request are malformed (RFC 9113, sections 8.1 to 8.3). Pure."""

import re
from collections.abc import Iterable

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")  # a token in lower case
_VALUE = re.compile(r"[^\0\r\n]*")
_PSEUDO = (":method", ":scheme", ":authority", ":path")
_REQUIRED = (":method", ":scheme", ":path")
_CONNECTION_SPECIFIC = ("connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade")


def malformed(headers: Iterable[tuple[str, str]]) -> str:
    """Returns why the headers are malformed, "" if they are well-formed."""
    pseudo: dict[str, str] = {}
    is_past_pseudo = False
    for name, value in headers:
        if name.startswith(":"):
            if is_past_pseudo:
                return "a pseudo-header comes after a regular header"
            if name not in _PSEUDO or name in pseudo:
                return f"the pseudo-header {name[:40]!r} is unknown or comes twice"
            pseudo[name] = value
        else:
            is_past_pseudo = True
            if problem := _field_problem(name, value):
                return problem
    for name in _REQUIRED:
        if not pseudo.get(name):
            return f"the pseudo-header {name} is missing or empty"
    return ""


def trailers_malformed(headers: Iterable[tuple[str, str]]) -> str:
    """Returns why the trailers are malformed, "" if they are well-formed."""
    problems = (
        "a pseudo-header in trailers" if name.startswith(":") else _field_problem(name, value)
        for name, value in headers
    )
    return next(filter(None, problems), "")


def _field_problem(name: str, value: str) -> str:
    if not _NAME.fullmatch(name):
        return f"{name[:40]!r} is not a valid header name"
    if not _VALUE.fullmatch(value):
        return f"the header {name[:40]!r} has a value of more than one line"
    if name in _CONNECTION_SPECIFIC or (name == "te" and value.lower() != "trailers"):
        return f"the header {name!r} with this value is not allowed in HTTP/2"
    if name == "content-length" and not (value.isascii() and value.isdigit()):
        return "content-length must be a number"
    return ""
