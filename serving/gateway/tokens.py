"""Tokens of an identity provider (JWT): which are valid, and whom they name. The keys to check them come from a JWKS.

Only signatures by a private key are taken (RSA, ECDSA, EdDSA), each by the algorithms that fit the type of the key that
the JWKS holds; so neither `none` nor an HMAC made with a public key has a chance. PyJWT checks signature, issuer and
audience; times are checked here, against the instant that the caller passes.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPRedirectHandler, build_opener

from serving.api.recall import Recall
from serving.gateway.caller import Caller
from serving.gateway.keys import Scope
from serving.traffic.tenants import NAME as TENANT_NAME

MOST_TOKEN_BYTES = 8 << 10
MOST_JWKS_BYTES = 1 << 20
FETCH_S = 5.0
REFRESH_NS = 300 * 1_000_000_000
# The least time between two readings, if one failed or a token names a key that is not there: such tokens cost nothing.
AGAIN_NS = 10 * 1_000_000_000
LEEWAY_S = 30  # by which the provider's clock may be ahead
# The algorithms that fit a type of key, and its curve. The settings offer these and no others.
OF_TYPE = {
    ("RSA", None): ("RS256", "RS384", "RS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
    ("OKP", "Ed448"): ("EdDSA",),
}
_SCOPES = {scope.value: scope for scope in Scope}
Signers = Mapping[tuple[str, str], Any]  # by the id of the key and the algorithm


class BadToken(Exception):
    """The token is not valid. It has no text: all are answered alike, and PyJWT's texts quote the token."""


class SignersUnknown(Exception):
    """The token may be valid or not: the JWKS that would tell could not be read."""


class BadKeySet(ValueError):
    """The JWKS cannot be used. The text says why."""


@dataclass(frozen=True, slots=True)
class TokenRules:
    """The facts that a token must state. tenant_claim, scopes_claim: the names of claims, `org.id` for nested ones.
    algorithms: by which it may be signed, of those in `OF_TYPE`."""

    issuer: str
    audience: str
    tenant_claim: str
    scopes_claim: str
    algorithms: tuple[str, ...]


class Tokens:
    """The tokens of one issuer. fetch: reads the JWKS; it is called in a thread, and raises OSError or BadKeySet."""

    def __init__(self, rules: TokenRules, fetch: Callable[[], bytes]) -> None:
        self._rules = rules
        self._fetch = fetch
        self._text = b""
        self._signers: Signers | None = None
        self._tried_ns: int | None = None
        self._is_wanted = False  # a token named a key that is not there
        self.failure = ""  # of the last reading
        self._known: Recall[Caller] = Recall(2048)  # by the digest of the token

    def known(self, token: bytes, now_ns: int) -> Caller | None:
        """Returns the caller of a token that was valid before, None if it has to be checked."""
        caller = self._known.get(sha256(token).digest())
        return caller if caller is not None and now_ns < (caller.expires_ns or 0) else None

    def read(self, token: bytes, now_ns: int) -> Caller:
        """Returns the caller that this token names. Raises BadToken, and SignersUnknown if that cannot be told now."""
        if len(token) > MOST_TOKEN_BYTES:
            raise BadToken
        signer, algorithm = self._signer(token)
        caller = self._caller(self._claims(token, signer, algorithm), now_ns // 1_000_000_000)
        self._known.keep(sha256(token).digest(), caller)
        return caller

    def is_due(self, now_ns: int) -> bool:
        if self._tried_ns is None:
            return True
        since_ns = now_ns - self._tried_ns
        # After a clock was set back, it is not known how long ago that was.
        return since_ns < 0 or since_ns >= (AGAIN_NS if self.failure or self._is_wanted else REFRESH_NS)

    async def refresh(self, now_ns: int) -> bool:
        """Reads the JWKS, and returns whether it has changed. If it cannot be read, the last one stays in force."""
        self._tried_ns, self._is_wanted = now_ns, False
        try:
            text = await asyncio.to_thread(self._fetch)
            if text == self._text:
                self.failure = ""
                return False
            signers = signers_of(text, self._rules.algorithms)
        except (OSError, BadKeySet) as error:
            self.failure = f"the JWKS cannot be read: {str(error) or type(error).__name__}"
            return False
        self._text, self._signers, self.failure = text, signers, ""
        self._known = Recall(2048)  # a key that was removed ends its tokens
        return True

    def _signer(self, token: bytes) -> tuple[Any, str]:
        import jwt

        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise BadToken from None
        algorithm, id = header.get("alg"), header.get("kid")
        if algorithm not in self._rules.algorithms or not isinstance(id, str):
            raise BadToken
        if self._signers is None:
            raise SignersUnknown
        signer = self._signers.get((id, algorithm))
        if signer is None:
            self._is_wanted = True
            raise SignersUnknown if self.failure else BadToken
        return signer, algorithm

    def _claims(self, token: bytes, signer: Any, algorithm: str) -> Mapping[str, Any]:
        import jwt

        try:
            claims: Mapping[str, Any] = jwt.decode(
                token,
                signer,
                algorithms=[algorithm],
                audience=self._rules.audience,
                issuer=self._rules.issuer,
                options={
                    "require": ["iss", "aud", "exp", "sub"],
                    "verify_exp": False,  # PyJWT would ask its own clock
                    "verify_nbf": False,
                    "verify_iat": False,
                    "enforce_minimum_key_length": True,
                },
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise BadToken from None
        return claims

    def _caller(self, claims: Mapping[str, Any], now_s: int) -> Caller:
        expires_s, subject = _instant(claims, "exp"), claims.get("sub")
        if now_s >= expires_s or ("nbf" in claims and now_s + LEEWAY_S < _instant(claims, "nbf")):
            raise BadToken
        tenant = _claim(claims, self._rules.tenant_claim)
        if (
            not isinstance(tenant, str)
            or not TENANT_NAME.fullmatch(tenant)
            or not isinstance(subject, str)
            or not subject
        ):
            raise BadToken
        scopes = _scopes(_claim(claims, self._rules.scopes_claim))
        return Caller(tenant, f"sub:{subject[:100]}", scopes, expires_s * 1_000_000_000)


def signers_of(text: bytes, algorithms: Sequence[str]) -> Signers:
    """Returns the keys in a JWKS that can check a signature by one of these algorithms. Raises BadKeySet."""
    from jwt import PyJWK, PyJWTError

    try:
        keys = json.loads(text)["keys"]
        entries = [key for key in keys if isinstance(key, dict)]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadKeySet("it is no JSON object with `keys`") from None
    signers: dict[tuple[str, str], Any] = {}
    for key in entries:
        id, kind = key.get("kid"), key.get("kty")
        fitting = OF_TYPE.get((str(kind), None if kind == "RSA" else str(key.get("crv"))), ())
        if not isinstance(id, str) or key.get("use", "sig") != "sig":
            continue
        for algorithm in fitting:
            if algorithm not in algorithms or key.get("alg", algorithm) != algorithm:
                continue
            if (id, algorithm) in signers:
                raise BadKeySet("two of its keys have the same `kid`")
            try:
                signers[id, algorithm] = PyJWK(key, algorithm)
            except (PyJWTError, ValueError, TypeError):
                raise BadKeySet("one of its keys cannot be read") from None
    if not signers:
        raise BadKeySet(f"it holds no key with a `kid` for {', '.join(algorithms)}")
    return signers


def fetcher(place: str) -> Callable[[], bytes]:
    """Returns a function that reads the JWKS at this place: a file, a `file://` or an `https://` URL.

    Unlike our own servers, a provider may be behind a proxy, so the usual variables apply. Redirects are not followed.
    """
    if place.startswith(("https://", "http://")):
        opener = build_opener(_NoRedirect)

        def ask() -> bytes:
            with opener.open(place, timeout=FETCH_S) as answer:
                return _bounded(answer.read(MOST_JWKS_BYTES + 1))

        return ask
    path = Path(unquote(urlsplit(place).path) if place.startswith("file://") else place)

    def read() -> bytes:
        with path.open("rb") as file:
            return _bounded(file.read(MOST_JWKS_BYTES + 1))

    return read


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any, **named: Any) -> None:
        return None


def _bounded(text: bytes) -> bytes:
    if len(text) > MOST_JWKS_BYTES:
        raise BadKeySet(f"it has more than {MOST_JWKS_BYTES} bytes")
    return text


def _claim(claims: Mapping[str, Any], name: str) -> object:
    """Returns the claim of this name, or the one that dots lead to: providers use both `org.id` and URLs as names."""
    if name in claims:
        return claims[name]
    value: object = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _scopes(value: object) -> frozenset[Scope]:
    """Returns our scopes among those of a token: a text with blanks, or a list. Others (openid) are of no concern."""
    words = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    return frozenset(_SCOPES[word] for word in words if isinstance(word, str) and word in _SCOPES)


def _instant(claims: Mapping[str, Any], name: str) -> int:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or not 0 <= value < 1e11:
        raise BadToken
    return int(value)
