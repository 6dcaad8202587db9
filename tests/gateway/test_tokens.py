"""Tests tokens of an identity provider: signatures, confusions, claims, times, and a JWKS that changes or is away."""

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import jwt
import pytest

from serving.api.faults import CallFailed, Fault
from serving.config import JwtSettings
from serving.gateway.callers import NOT_NOW, UNAUTHENTICATED, Callers
from serving.gateway.failures import BURST
from serving.gateway.keys import Scope
from serving.gateway.tokens import (
    AGAIN_NS,
    LEEWAY_S,
    MOST_TOKEN_BYTES,
    OF_TYPE,
    REFRESH_NS,
    BadKeySet,
    BadToken,
    SignersUnknown,
    TokenRules,
    Tokens,
    fetcher,
    signers_of,
)
from tests.gateway.signers import CLAIMS, RULES, forged, jwk, jwks, part, private, public, token, tokens
from tests.gateway.stories import NOW_S, Door, S, bearer, creation, fixed

ALGORITHMS = tuple({algorithm for fitting in OF_TYPE.values() for algorithm in fitting})


@pytest.mark.parametrize("name", ["rsa", "ec", "ed"])
def test_a_token_says_who_calls_and_what_for(name: str) -> None:
    caller = tokens().read(token(name), NOW_S * S)
    assert (caller.tenant, caller.key_id, caller.expires_ns) == ("acme", "sub:anna", (NOW_S + 300) * S)
    assert caller.scopes == {Scope.PREDICT, Scope.FEEDBACK}


BAD: dict[str, Callable[[], bytes]] = {
    "alg none": lambda: forged({"alg": "none", "kid": "rsa"}, None),
    "alg None": lambda: forged({"alg": "None", "kid": "rsa"}, None),
    "no alg": lambda: forged({"kid": "rsa"}, None),
    "an HMAC of the public key": lambda: forged({"alg": "HS256", "kid": "rsa"}, public("rsa")),
    "an HMAC of the JWK": lambda: forged({"alg": "HS256", "kid": "rsa"}, json.dumps(jwk("rsa")).encode()),
    "an HMAC that claims to be RS256": lambda: forged({"alg": "RS256", "kid": "rsa"}, public("rsa")),
    "the algorithm of another type of key": lambda: forged({"alg": "ES256", "kid": "rsa"}, public("rsa")),
    "an algorithm that is not allowed": lambda: jwt.encode(
        CLAIMS, private("rsa"), "RS512", headers={"kid": "rsa"}
    ).encode(),
    "another's key under a known kid": lambda: token("other", headers={"kid": "ec"}),
    "a foreign kid": lambda: token("other"),
    "a kid that is a path": lambda: token(headers={"kid": "../../dev/null"}),
    "a kid that is a query": lambda: token(headers={"kid": "x' UNION SELECT 'k"}),
    "no kid": lambda: jwt.encode(CLAIMS, private("ec"), "ES256").encode(),
    "a key in its own header": lambda: token("other", headers={"jwk": jwk("other"), "kid": "mine"}),
    "a URL of keys in its header": lambda: token("other", headers={"jku": "https://evil.example/jwks", "kid": "mine"}),
    "an unknown critical header": lambda: token(headers={"crit": ["exp2"], "exp2": 1}),
    "another issuer": lambda: token(iss="https://evil.example"),
    "another audience": lambda: token(aud="elsewhere"),
    "no issuer": lambda: token(without="iss"),
    "no audience": lambda: token(without="aud"),
    "no expiry": lambda: token(without="exp"),
    "no subject": lambda: token(without="sub"),
    "an empty subject": lambda: token(sub=""),
    "an expiry that has passed": lambda: token(exp=NOW_S),
    "an expiry that is a text": lambda: token(exp="never"),
    "an expiry without an end": lambda: token(exp=1e300),
    "a beginning in the future": lambda: token(nbf=NOW_S + LEEWAY_S + 1),
    "no tenant": lambda: token(without="org"),
    "a tenant that is a list": lambda: token(org={"id": ["acme"]}),
    "a tenant that is no header": lambda: token(org={"id": "ac\nme"}),
    "a tenant without a name": lambda: token(org={"id": ""}),
    "a changed claim": lambda: b".".join(
        [token().split(b".")[0], part(CLAIMS | {"sub": "eve"}), token().split(b".")[2]]
    ),
    "no signature": lambda: token().rpartition(b".")[0] + b".",
    "two parts": lambda: token().rpartition(b".")[0],
    "nothing": lambda: b"",
    "dots": lambda: b"..",
    "no Base64": lambda: b"\xff.\xff.\xff",
    "deep JSON": lambda: base64.urlsafe_b64encode(b"[" * 5000) + b".e30.",
    "too long": lambda: token(more="x" * MOST_TOKEN_BYTES),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_token_that_is_wrong_in_any_way_is_refused_without_a_word(bad: Callable[[], bytes]) -> None:
    with pytest.raises(BadToken) as caught:
        tokens().read(bad(), NOW_S * S)
    assert (str(caught.value), caught.value.__cause__) == ("", None)


def test_a_provider_whose_clock_is_a_little_ahead_is_believed() -> None:
    assert tokens().read(token(nbf=NOW_S + LEEWAY_S), NOW_S * S)


def test_scopes_are_a_text_or_a_list_and_claims_may_be_named_by_urls() -> None:
    rules = TokenRules("https://id.example", "headway", "https://x.example/tenant", "scp", ("ES256",))
    made = token(**{"https://x.example/tenant": "t", "scp": ["admin", "admin", 5, "fly", ["x"]]})
    caller = tokens(rules=rules).read(made, NOW_S * S)
    assert (caller.tenant, caller.scopes) == ("t", {Scope.ADMIN})
    assert tokens().read(token(scope=5), NOW_S * S).scopes == frozenset()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "no JSON object"),
        (b"[]", "no JSON object"),
        (b'{"keys": 5}', "no JSON object"),
        (b'{"keys": []}', "holds no key"),
        (b'{"keys": [5, {"kid": "a"}, {"kty": ["RSA"], "kid": "b"}]}', "holds no key"),
        (b'{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "a", "alg": "HS256"}]}', "holds no key"),
        (b'{"keys": [{"kty": "EC", "crv": "P-256", "kid": "a"}]}', "cannot be read"),
        (b'{"keys": [{"kty": "OKP", "crv": "X25519", "kid": "a"}]}', "holds no key"),
    ],
)
def test_a_key_set_that_is_of_no_use_says_why(text: bytes, why: str) -> None:
    with pytest.raises(BadKeySet, match=why):
        signers_of(text, RULES.algorithms)


def test_the_settings_offer_the_algorithms_that_fit_some_type_of_key_and_no_others() -> None:
    (offered,) = get_args(JwtSettings.model_fields["algorithms"].annotation)
    assert sorted(get_args(offered)) == sorted(ALGORITHMS)


def test_of_a_key_set_only_keys_for_signatures_by_the_algorithms_allowed_are_taken() -> None:
    assert signers_of(jwks("rsa", "ec"), ALGORITHMS).keys() == {
        ("rsa", "RS256"), ("rsa", "RS384"), ("rsa", "RS512"), ("ec", "ES256")
    }  # fmt: skip
    assert signers_of(jwks("rsa", alg="RS512"), ALGORITHMS).keys() == {("rsa", "RS512")}
    with pytest.raises(BadKeySet):
        signers_of(jwks("rsa", use="enc"), ALGORITHMS)
    with pytest.raises(BadKeySet, match="the same `kid`"):
        signers_of(jwks("ec", "other", kid="one"), ALGORITHMS)


def test_a_short_rsa_key_is_not_trusted() -> None:
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        made = token("short")
    with pytest.raises(BadToken):
        tokens(jwks("short")).read(made, NOW_S * S)


class Provider:
    """A JWKS that changes and fails as a test says."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.is_down = False
        self.asked = 0
        self.tokens = Tokens(RULES, self.fetch)
        self.callers = Callers(None, self.tokens)

    def fetch(self) -> bytes:
        self.asked += 1
        if self.is_down:
            raise ConnectionRefusedError("no route")
        return jwks(*self.names)

    def look(self, at_s: float = 0) -> None:
        asyncio.run(self.callers.look(int((NOW_S + at_s) * S)))

    def fault(self, shown: bytes, at_s: float = 0) -> Fault | None:
        try:
            self.callers.of(b"Bearer " + shown, "", int((NOW_S + at_s) * S), lambda: "192.0.2.1")
        except CallFailed as error:
            return error.fault
        return None


def test_the_key_set_is_read_again_only_after_some_minutes() -> None:
    provider = Provider("ec")
    for at_s in (0, 1, REFRESH_NS // S - 1, REFRESH_NS // S):
        provider.look(at_s)
    assert provider.asked == 2


def test_unknown_keys_have_it_read_again_at_most_every_ten_seconds() -> None:
    provider = Provider("ec")
    provider.look()
    for at_s in range(20):
        assert provider.fault(token("other"), at_s) is not None
        provider.look(at_s)
    assert provider.asked == 1 + 19 // (AGAIN_NS // S)
    provider.names = ("ec", "other")
    provider.look(20)
    assert provider.fault(token("other"), 100) is None


def test_a_key_that_was_removed_ends_its_tokens() -> None:
    provider = Provider("ec", "rsa")
    provider.look()
    assert provider.fault(token("rsa")) is None
    before = provider.callers.generation
    provider.names = ("ec",)
    provider.look(REFRESH_NS // S)
    assert provider.callers.generation == before + 1
    assert provider.fault(token("rsa")) is UNAUTHENTICATED
    assert provider.fault(token("ec")) is None


def test_while_the_provider_is_away_known_keys_go_on_and_others_may_be_good() -> None:
    provider = Provider("ec")
    provider.is_down = True
    provider.look()
    assert provider.fault(token("ec")) == NOT_NOW
    assert provider.fault(b"a.b.c") is UNAUTHENTICATED
    provider.is_down = False
    provider.look(AGAIN_NS // S)
    assert provider.fault(token("ec")) is None
    provider.is_down = True
    provider.look(1000)
    assert provider.callers.troubles() == ("tokens: the JWKS cannot be read: no route",)
    assert provider.fault(token("ec", sub="otto")) is None
    assert provider.fault(token("other")) == NOT_NOW
    with pytest.raises(SignersUnknown):
        provider.tokens.read(token("other"), NOW_S * S)


def test_a_clock_that_is_set_back_has_the_key_set_read_again() -> None:
    provider = Provider("ec")
    provider.look()
    provider.look(-(10**6))
    assert provider.asked == 2


def test_a_token_is_checked_once_and_ends_when_it_says() -> None:
    provider = Provider("ec")
    provider.look()
    shown = token("ec")
    first, again = (provider.callers.of(b"Bearer " + shown, "acme", NOW_S * S) for _ in range(2))
    assert first is again
    before = provider.callers.generation
    provider.look(299)
    assert provider.callers.generation == before
    provider.look(300)
    assert provider.callers.generation == before + 1
    assert provider.fault(shown, 300) is UNAUTHENTICATED


def test_signatures_are_not_checked_for_an_address_that_failed_too_often() -> None:
    provider = Provider("ec")
    provider.look()
    known = token("ec")
    assert provider.fault(known) is None
    for _ in range(BURST):
        assert provider.fault(token("other", headers={"kid": "ec"})) is UNAUTHENTICATED
    late = provider.fault(token("ec", sub="late"))
    assert late is not None
    assert late.status == 429
    assert provider.fault(known) is None


def test_keys_and_tokens_are_taken_side_by_side() -> None:
    key = fixed(1)
    door = Door(creation(key, "acme"))
    callers = Callers(door.callers._log, Tokens(RULES, lambda: jwks("ed")), calendar=door.clock)
    asyncio.run(callers.look(NOW_S * S))
    assert callers.of(bearer(key)).key_id == key.id
    assert callers.of(b"Bearer " + token("ed")).key_id == "sub:anna"


def test_no_repr_shows_a_token(caplog: pytest.LogCaptureFixture) -> None:
    provider = Provider("ec")
    provider.look()
    shown = token("ec").decode()
    caller = provider.callers.of(f"Bearer {shown}", "", NOW_S * S)
    provider.fault(token("other"))
    for text in (repr(caller), repr(provider.callers), repr(provider.tokens), caplog.text):
        assert "eyJ" not in text


def test_a_key_set_is_read_from_a_file_and_has_an_end(tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_bytes(jwks("ec"))
    assert fetcher(str(tmp_path / "jwks.json"))() == jwks("ec")
    assert fetcher(f"file://{tmp_path}/jwks.json")() == jwks("ec")
    (tmp_path / "large").write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(BadKeySet, match="bytes"):
        fetcher(str(tmp_path / "large"))()
    with pytest.raises(OSError, match="none"):
        fetcher(str(tmp_path / "none"))()
