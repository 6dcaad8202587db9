"""Tokens for tests as an identity provider signs them, and as an attacker forges them."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from serving.gateway.tokens import TokenRules, Tokens
from tests.gateway.stories import NOW_S, S

RULES = TokenRules("https://id.example", "headway", "org.id", "scope", ("RS256", "ES256", "EdDSA"))
CLAIMS: dict[str, Any] = {
    "iss": "https://id.example",
    "aud": "headway",
    "sub": "anna",
    "exp": NOW_S + 300,
    "org": {"id": "acme"},
    "scope": "openid predict feedback",
}


@cache
def private(name: str) -> Any:
    makers: dict[str, Callable[[], Any]] = {
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "short": lambda: rsa.generate_private_key(65537, 1024),
        "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
        "other": lambda: ec.generate_private_key(ec.SECP256R1()),
        "ed": ed25519.Ed25519PrivateKey.generate,
    }
    return makers[name]()


OF = {"rsa": "RS256", "short": "RS256", "ec": "ES256", "other": "ES256", "ed": "EdDSA"}


def jwk(name: str, **more: Any) -> dict[str, Any]:
    value = get_default_algorithms()[OF[name]].to_jwk(private(name).public_key(), as_dict=True)
    return {**value, "kid": name} | more


def jwks(*names: str, **more: Any) -> bytes:
    return json.dumps({"keys": [jwk(name, **more) for name in names]}).encode()


def token(name: str = "ec", *, headers: dict[str, Any] | None = None, without: str = "", **claims: Any) -> bytes:
    said = {key: value for key, value in {**CLAIMS, **claims}.items() if key != without}
    return jwt.encode(said, private(name), OF[name], headers={"kid": name} | (headers or {})).encode()


def tokens(text: bytes | None = None, rules: TokenRules = RULES) -> Tokens:
    made = Tokens(rules, lambda: jwks("rsa", "ec", "ed") if text is None else text)
    asyncio.run(made.refresh(NOW_S * S))
    return made


def part(value: object) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")


def forged(header: dict[str, Any], secret: bytes | None) -> bytes:
    body = part(header) + b"." + part(CLAIMS)
    digest = b"" if secret is None else hmac.digest(secret, body, hashlib.sha256)
    return body + b"." + base64.urlsafe_b64encode(digest).rstrip(b"=")


def public(name: str) -> bytes:
    key: bytes = (
        private(name)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return key
